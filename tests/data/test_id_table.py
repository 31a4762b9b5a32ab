"""The growing table gives every distinct value one number, whatever comes in which order."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.data.id_table import IdTable
from autoembed.data.keys import KeyCollision, integer_keys, string_keys

PIECES = st.lists(
    st.lists(
        st.sampled_from(["a", "b", "c", "a long value", "another long value"]) | st.text("abc", max_size=12),
        unique=True,
        max_size=12,
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=50)
@given(PIECES)
def test_numbers_are_consecutive_and_stay_with_their_values(pieces: list[list[str]]) -> None:
    table = IdTable("strings")
    number_of: dict[str, int] = {}
    for piece in pieces:
        values = pa.array(piece, pa.string())
        for value, number in zip(piece, table.numbers_of(values, *string_keys(values)), strict=True):
            assert number_of.setdefault(value, int(number)) == number
    assert sorted(number_of.values()) == list(range(table.size))
    counts = np.array([n % 3 for n in range(table.size)], dtype=np.int64)
    vocabulary, rows, kept = table.ranked(counts, 1)
    wanted = sorted(
        (value for value, n in number_of.items() if n % 3), key=lambda v: (-(number_of[v] % 3), v.encode())
    )
    assert vocabulary.values.to_pylist() == wanted
    assert kept.tolist() == [number_of[value] % 3 for value in wanted]
    assert rows[0] == 0
    assert rows[[number_of[value] + 1 for value in wanted]].tolist() == list(range(1, len(wanted) + 1))
    assert (rows > 0).sum() == len(wanted)


def test_a_long_stream_agrees_with_a_dictionary() -> None:
    random = np.random.default_rng(0)
    table, number_of = IdTable("integers"), {}
    for _ in range(40):
        values = np.unique(random.integers(-3000, 3000, 400))
        numbers = table.numbers_of(pa.array(values), integer_keys(values), True)
        for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
            assert number_of.setdefault(value, number) == number
    assert table.size == len(number_of) > 5000


def test_a_collision_is_never_passed_over() -> None:
    table = IdTable("strings")
    one = np.array([7], dtype=np.uint64)
    table.numbers_of(pa.array(["a long value"]), one, False)
    assert table.numbers_of(pa.array(["a long value"]), one, False).tolist() == [0]
    with pytest.raises(KeyCollision):
        table.numbers_of(pa.array(["another long value"]), one, False)
    with pytest.raises(KeyCollision):
        table.numbers_of(pa.array(["x" * 9, "y" * 9]), np.array([8, 8], dtype=np.uint64), False)
