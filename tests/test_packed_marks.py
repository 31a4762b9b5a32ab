"""Packed marks: what is no list and no bits of marks is found out, without taking memory for all places."""

import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed import packed_marks
from autoembed.packed_marks import count_marks, is_list_of_marks
from autoembed_kernels.listed_marks import listed_bytes, pack_listed, unpack_listed
from autoembed_kernels.marked_bits import marks_bytes, pack_marks, unpack_marks


def marks_of(places: int, marked: int, seed: int) -> torch.Tensor:
    marks = torch.zeros(places, dtype=torch.bool)
    marks[torch.randperm(places, generator=torch.Generator().manual_seed(seed))[:marked]] = True
    return marks


@pytest.fixture(params=[1 << 18, 64])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, and a few marks or one block of bits at a time."""
    monkeypatch.setattr(packed_marks, "_PIECE", request.param)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize(
    ("places", "marked"),
    [(1, 1), (256, 1), (257, 200), (600, 3), (600, 600), (65537, 2), (70001, 4000), (200000, 150)],
)
def test_what_was_packed_is_accepted(places: int, marked: int) -> None:
    marks = marks_of(places, marked, seed=places)
    assert is_list_of_marks(pack_listed(marks), places, marked)
    assert count_marks(pack_marks(marks), places) == marked
    # where it lies in a file, numbers of several bytes are not aligned
    assert is_list_of_marks(torch.cat([torch.zeros(1).byte(), pack_listed(marks)])[1:], places, marked)
    assert count_marks(torch.cat([torch.zeros(1).byte(), pack_marks(marks)])[1:], places) == marked


@given(st.integers(1, 1200), st.data())
@settings(deadline=None, max_examples=300)
def test_exactly_what_packing_would_give_is_accepted(places: int, data: st.DataObject) -> None:
    marked = data.draw(st.integers(1, min(places, 40)))
    index = pack_listed(marks_of(places, marked, seed=1))
    assert len(index) == listed_bytes(places, marked)
    index[data.draw(st.integers(0, len(index) - 1))] = data.draw(st.integers(0, 255))
    packed_again = pack_listed(unpack_listed(index, places, marked))
    assert is_list_of_marks(index, places, marked) == torch.equal(packed_again, index)
    bits = pack_marks(marks_of(places, marked, seed=2))
    bits[data.draw(st.integers(0, len(bits) - 1))] = data.draw(st.integers(0, 255))
    marks = unpack_marks(bits, places)
    expected = int(marks.sum()) if torch.equal(pack_marks(marks), bits) else None
    assert count_marks(bits, places) == expected


def test_places_without_a_mark_take_no_memory() -> None:
    places = 2**35  # 8 chunks of 2^32 rows
    index = torch.zeros(listed_bytes(places, 1), dtype=torch.uint8)  # the mark of the last block, and only it
    tracemalloc.start()
    try:
        assert is_list_of_marks(index, places, 1)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(index)  # 8 MB, a byte for each place is 32 GB
    finally:
        tracemalloc.stop()


def test_bits_take_no_memory_beside_a_piece() -> None:
    places = 2**27 + 5
    index = torch.zeros(marks_bytes(places), dtype=torch.uint8)
    tracemalloc.start()
    try:
        assert count_marks(index, places) == 0
        assert tracemalloc.get_traced_memory()[1] < 4 << 20  # whatever the number of places
    finally:
        tracemalloc.stop()
