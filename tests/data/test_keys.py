"""Keys keep distinct values apart where they say so, and the order of values."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.data.keys import buckets, integer_keys, integers_of, string_keys, strings_of

WORDS = st.lists(st.text(max_size=12) | st.text("ab\0", max_size=9), unique=True, max_size=30)


@settings(deadline=None)
@given(WORDS, st.integers(0, 5), st.sampled_from([pa.string(), pa.large_string()]))
def test_exact_keys_are_distinct_ordered_and_can_be_undone(
    words: list[str], seed: int, kind: pa.DataType
) -> None:
    words = [word for word in words if "\ud800" not in word]
    keys, exact = string_keys(pa.array(["skipped", *words], kind).slice(1), seed)
    assert exact == all(len(word.encode()) <= 8 and "\0" not in word for word in words)
    if exact:
        assert strings_of(keys).to_pylist() == words
        by_value = sorted(range(len(words)), key=lambda i: words[i].encode())
        assert np.argsort(keys, kind="stable").tolist() == by_value
    assert len(set(keys.tolist())) == len(words)


def test_keys_of_long_text_depend_on_every_byte_the_length_and_the_seed() -> None:
    text = "a long enough text of some words"
    changed = [text[:i] + "#" + text[i + 1 :] for i in range(len(text))]
    words = pa.array([text, text[:-1], text + "\0", *changed])
    keys = np.concatenate([string_keys(words, seed)[0] for seed in (0, 1)])
    assert len(np.unique(keys)) == 2 * len(words)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True))
def test_integer_keys_are_ordered_and_can_be_undone(values: list[int]) -> None:
    array = np.array(values, dtype=np.int64)
    keys = integer_keys(array)
    assert integers_of(keys).tolist() == values
    assert np.argsort(keys).tolist() == np.argsort(array).tolist()


def test_buckets_rise_with_the_number_and_keep_small_numbers_apart() -> None:
    values = [-2, -1, 0, 1, 2, 3, 5, 10, 100, 10_000]
    found = buckets(pa.array(values)).to_pylist()
    assert found[:5] == [-2, -1, 0, 1, 2]
    assert found[5:] == [3, 4, 7, 23, 86]
    assert buckets(pa.array([None, float("nan"), float("inf"), 1e300])).to_pylist()[:3] == [None] * 3
