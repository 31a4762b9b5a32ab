"""A vocabulary maps values to rows, survives its tensors, and can be cut short."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.data.vocabulary import RepeatedIdError, Vocabulary, plain_array

WORDS = ["b", "a", "", "a longer word", "ünïcödé wörds"]


def words(values: list[str] = WORDS) -> Vocabulary:
    return Vocabulary("strings", pa.array(values, pa.large_string()))


def numbers(values: list[int]) -> Vocabulary:
    return Vocabulary("integers", pa.array(values, pa.int64()))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=15), unique=True, max_size=20), st.data())
def test_looking_up_agrees_with_a_dictionary(values: list[str], data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.none() | st.sampled_from(values or ["x"]) | st.text(max_size=12)))
    row_of = {value: row for row, value in enumerate(values, start=1)}
    expected = [row_of.get(value, 0) for value in asked]
    assert words(values).lookup(pa.array(asked, pa.string())).tolist() == expected
    assert words(values).lookup(asked).tolist() == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20), st.integers(-5, 5))
def test_numbers_are_looked_up_as_numbers(values: list[int], other: int) -> None:
    vocabulary = numbers(values)
    assert vocabulary.lookup(values).tolist() == list(range(1, len(values) + 1))
    assert vocabulary.lookup([other]).tolist() == [values.index(other) + 1 if other in values else 0]


def test_unsigned_hashes_beyond_int64_are_looked_up_by_their_bits() -> None:
    hashes = pa.array([2**64 - 1, None, 2**63, 7], pa.uint64())
    assert numbers([7, -1, -(2**63)]).lookup(hashes).tolist() == [2, 0, 3, 1]


def test_chunked_dictionary_and_empty_arrays_are_read() -> None:
    asked = pa.chunked_array([["a", None], ["b"]])
    assert words().lookup(asked).tolist() == [2, 0, 1]
    assert words().lookup(asked.dictionary_encode()).tolist() == [2, 0, 1]
    assert words().lookup([]).tolist() == []
    assert words().lookup(pa.chunked_array([], pa.string())).tolist() == []
    assert words([]).lookup(["a"]).tolist() == [0]


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        (words(["a", "b", "a"]), "the id 'a' twice"),
        (words(["a longer word", "b", "another word", "a longer word"]), "the id 'a longer word' twice"),
        (numbers([5, -3, 5]), "the id 5 twice"),
    ],
)
def test_an_id_that_has_two_rows_is_refused(vocabulary: Vocabulary, message: str) -> None:
    with pytest.raises(RepeatedIdError, match=message):
        vocabulary.lookup(vocabulary.values)


def test_lists_of_numbers_are_unsigned_where_int64_does_not_hold_them() -> None:
    known = numbers([7, -1, 5 - 2**63])
    assert known.lookup([2**63 + 5, 7, None, 2**64 - 1]).tolist() == [3, 1, 0, 2]
    assert known.lookup(iter([7, 2**63 + 5])).tolist() == [1, 3]
    assert plain_array([[2**63 + 5], None]).type == pa.list_(pa.uint64())
    for values in ([2**63, -1], [2**64], [[2**63], [-1]]):
        with pytest.raises(OverflowError):
            plain_array(values)
    for values in ([2**63, 1.5], [1.5, 2**63], [[2**63], [1.5]]):
        with pytest.raises(pa.ArrowInvalid):  # cast to whole numbers, they would lose their fractions
            plain_array(values)


def test_arrays_of_another_byte_order_and_views_of_text_are_read() -> None:
    assert numbers([7, 5]).lookup(np.array([5, 7], ">i4")).tolist() == [2, 1]
    assert words().lookup(np.array(["a", "b"], ">U1")).tolist() == [2, 1]
    assert words().lookup(pa.array(["a", None], pa.string_view())).tolist() == [2, 0]


def test_text_and_numbers_are_never_confused() -> None:
    with pytest.raises(TypeError, match="holds text, got int64; pass strings"):
        words().lookup([1])
    with pytest.raises(TypeError, match="holds numbers, got string; pass numbers"):
        numbers([1]).lookup(["1"])


@pytest.mark.parametrize("vocabulary", [words(), words([]), numbers([5, -3]), numbers([])])
def test_tensors_hold_all_of_it(vocabulary: Vocabulary) -> None:
    again = Vocabulary.from_tensors(vocabulary.tensors())
    assert (again.kind, again.values.to_pylist()) == (vocabulary.kind, vocabulary.values.to_pylist())
    assert vocabulary.nbytes == sum(tensor.nbytes for tensor in vocabulary.tensors().values())


def test_a_truncated_vocabulary_knows_its_first_rows_and_stores_no_more() -> None:
    short = words().truncated(3)
    assert (short.rows, short.size) == (3, 2)
    assert short.lookup(["b", "a", "", "a longer word"]).tolist() == [1, 2, 0, 0]
    assert short.tensors()["bytes"].tobytes() == b"ba"
    assert Vocabulary.from_tensors(short.tensors()).values.to_pylist() == ["b", "a"]
    assert words().truncated(1).lookup(WORDS).tolist() == [0] * 5
    with pytest.raises(ValueError, match="between 1 and 6"):
        words().truncated(7)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=12) | st.integers(0, 9).map(str), unique=True, max_size=12), st.data())
def test_a_reordered_vocabulary_knows_the_same_ids_in_other_rows(
    values: list[str], data: st.DataObject
) -> None:
    rows = [0, *data.draw(st.permutations(range(1, len(values) + 1)))]
    kept = data.draw(st.integers(1, len(rows)))
    integers = [len(value) + 100 * number for number, value in enumerate(values)]
    for vocabulary in (words(values), numbers(integers)):
        known = vocabulary.values.to_pylist()
        after = vocabulary.reordered(np.array(rows, np.int32))
        assert (after.kind, after.nbytes, after.rows) == (vocabulary.kind, vocabulary.nbytes, len(rows))
        assert vocabulary.lookup(known).tolist() == [*range(1, len(rows))]
        assert after.lookup(known).tolist() == [rows.index(row) for row in range(1, len(rows))]
        short = Vocabulary.from_tensors(after.truncated(kept).tensors())
        assert short.values.to_pylist() == [known[row - 1] for row in rows[1:kept]]


@pytest.mark.parametrize(
    "tensors",
    [
        {"offsets": np.array([0, 2, 1]), "bytes": np.zeros(1, np.uint8)},
        {"offsets": np.array([0, 3]), "bytes": np.zeros(1, np.uint8)},
        {"offsets": np.array([0, 1]), "bytes": np.array([255], np.uint8)},
        {"integers": np.zeros(1), "bytes": np.zeros(1, np.uint8)},
    ],
)
def test_damaged_tensors_are_refused(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary.from_tensors(tensors)
