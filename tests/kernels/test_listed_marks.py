import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.listed_marks import find_listed, listed_bytes, pack_listed, unpack_listed
from autoembed_kernels.marked_bits import marks_bytes

# (places, share of marked ones); few marks take the wider form, many the narrower
PARTS = st.lists(st.tuples(st.integers(0, 700), st.sampled_from([0.0, 0.003, 0.1, 1.0])), max_size=4)


@given(PARTS, st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_every_place_is_found_as_by_counting_one_by_one(parts: list[tuple[int, float]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tables = [torch.rand(places, generator=generator) < share for places, share in parts]
    packed = [pack_listed(marks) for marks in tables]
    rows, marked, ranks = [], [], []
    at = 0
    for marks, own in zip(tables, packed, strict=True):
        before = 0
        for place, mark in enumerate(marks.tolist()):
            rows.append((at, len(marks), int(marks.sum()), place))
            marked.append(mark)
            ranks.append(before)
            before += mark
        at += len(own)
    whole = torch.cat([torch.zeros(0, dtype=torch.uint8), *packed])
    columns = torch.tensor(rows, dtype=torch.int64).view(-1, 4).unbind(1)
    found, rank = find_listed(whole, *columns)
    assert found.tolist() == marked
    assert rank.tolist() == ranks


@pytest.mark.parametrize("places", [1, 255, 256, 257, 65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("share", [0.0, 1e-4, 0.02, 0.5, 1.0])
def test_lists_take_the_bytes_of_the_formula_and_come_back(places: int, share: float) -> None:
    marks = torch.rand(places, generator=torch.Generator().manual_seed(places)) < share
    marked = int(marks.sum())
    packed = pack_listed(marks)
    narrow, wide = 4 * -(-places // 256) + marked, 4 * -(-places // 65_536) + 2 * marked
    assert len(packed) == listed_bytes(places, marked) == min(narrow, wide)
    assert torch.equal(unpack_listed(packed, places, marked), marks)
    place = torch.randint(0, places, (50,), generator=torch.Generator().manual_seed(1))
    same = [torch.full_like(place, number) for number in (0, places, marked)]
    found, rank = find_listed(packed, *same, place)
    assert torch.equal(found, marks[place])
    assert rank.tolist() == [int(marks[:p].sum()) for p in place.tolist()]


def test_lists_are_these_bytes() -> None:
    marks = torch.zeros(520, dtype=torch.bool)
    marks[[0, 3, 300, 513]] = True
    # one block of 2^16 places: a count and four marks of two bytes; three blocks of 2^8 would take 16
    assert pack_listed(marks).tolist() == [0, 0, 0, 0, 0, 0, 3, 0, 300 - 256, 1, 513 - 512, 2]
    marks[:20] = True
    counts, low = [0, 20, 21], [*range(20), 300 - 256, 513 - 512]
    assert pack_listed(marks).tolist() == [byte for c in counts for byte in (c, 0, 0, 0)] + low


def test_a_list_takes_fewer_bytes_than_bits_where_few_places_are_marked() -> None:
    places = 1_000_000
    bits = marks_bytes(places)
    assert listed_bytes(places, places // 400) < bits / 20
    assert listed_bytes(places, places // 16) < bits * 0.6
    assert listed_bytes(places, places // 4) > bits
