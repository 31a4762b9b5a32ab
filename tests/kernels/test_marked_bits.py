import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.marked_bits import AT_ONCE, BLOCK, find_marked, marks_bytes, pack_marks, unpack_marks


@given(st.lists(st.tuples(st.integers(0, 3 * BLOCK), st.floats(0, 1)), max_size=4), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_every_place_is_found_as_by_counting_one_by_one(parts: list[tuple[int, float]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.rand(places, generator=generator) < share for places, share in parts]
    packed = [pack_marks(marks) for marks in tables]
    starts, sizes, places, marked, ranks = [], [], [], [], []
    at = 0
    for marks, own in zip(tables, packed, strict=True):
        before = 0
        for place, mark in enumerate(marks.tolist()):
            starts.append(at)
            sizes.append(len(marks))
            places.append(place)
            marked.append(mark)
            ranks.append(before)
            before += mark
        at += len(own)
    whole = torch.cat([torch.zeros(0, dtype=torch.uint8), *packed])
    columns = [torch.tensor(column, dtype=torch.int64) for column in (starts, sizes, places)]
    found, rank = find_marked(whole, *columns)
    assert found.tolist() == marked
    assert rank.tolist() == ranks


def test_more_look_ups_than_are_taken_at_once_find_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    marks = torch.rand(5000, generator=generator) < 0.3
    place = torch.randint(0, len(marks), (2 * AT_ONCE + 3,), generator=generator)
    zero, size = torch.zeros_like(place), torch.full_like(place, len(marks))
    marked, rank = find_marked(pack_marks(marks), zero, size, place)
    assert torch.equal(marked, marks[place])
    assert torch.equal(rank, (marks.cumsum(0) - marks.long())[place])


@pytest.mark.parametrize("places", [0, 1, 7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_marks_take_the_bytes_of_the_formula_and_come_back(places: int) -> None:
    marks = torch.rand(places, generator=torch.Generator().manual_seed(places)) < 0.5
    packed = pack_marks(marks)
    assert packed.dtype == torch.uint8
    assert len(packed) == marks_bytes(places) == 4 * -(-places // 512) + -(-places // 8)
    assert torch.equal(unpack_marks(packed, places), marks)


def test_marks_are_these_bytes() -> None:
    marks = torch.zeros(520, dtype=torch.bool)
    marks[[0, 3, 300, 513]] = True
    bits = bytearray(65)
    bits[0], bits[37], bits[64] = 0b1001, 0b10000, 0b10
    assert bytes(pack_marks(marks).tolist()) == bytes([0, 0, 0, 0, 3, 0, 0, 0]) + bytes(bits)
