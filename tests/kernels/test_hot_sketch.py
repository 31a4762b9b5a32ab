import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.hot_sketch import NONE, SLOT_BYTES, SLOTS, HotSketch, ReferenceSketch

# eighths are summed without rounding
AMOUNTS = st.integers(0, 40).map(lambda eighths: eighths / 8)
BATCHES = st.lists(st.dictionaries(st.integers(0, 60), AMOUNTS, max_size=30), max_size=8)


def add(sketch: HotSketch, batch: dict[int, float]) -> None:
    sketch.add(torch.tensor(list(batch), dtype=torch.int64), torch.tensor(list(batch.values())))


@given(BATCHES, st.integers(1, 9), st.booleans())
@settings(deadline=None, max_examples=60)
def test_batches_go_where_the_reference_puts_them(
    batches: list[dict[int, float]], places: int, rounds: bool
) -> None:
    sketch, slow = HotSketch(places), ReferenceSketch(places)
    for batch in batches:
        add(sketch, batch)
        slow.add(list(batch), list(batch.values()))
        if rounds:
            sketch.rebalance(1.0, 0.0)
            slow.place = sketch.place.tolist()
        assert sketch.rows.tolist() == slow.rows
        assert sketch.importance.tolist() == slow.importance


@given(BATCHES, st.integers(1, 9), st.floats(0.0, 1.0), st.floats(0.0, 0.5))
@settings(deadline=None, max_examples=60)
def test_no_row_is_tracked_twice_and_no_place_given_twice(
    batches: list[dict[int, float]], places: int, decay: float, margin: float
) -> None:
    sketch = HotSketch(places)
    owner: dict[int, int] = {}
    for batch in batches:
        add(sketch, batch)
        moved = sketch.rebalance(decay, margin)
        for place in moved.lost.tolist():
            owner.pop(place)
        for row, place in zip(moved.rows.tolist(), moved.places.tolist(), strict=True):
            assert place not in owner
            owner[place] = row
        tracked = sketch.rows[sketch.rows != NONE].tolist()
        assert len(set(tracked)) == len(tracked)
        assert len(set(owner.values())) == len(owner) <= places
        rows = torch.arange(61)
        found = sketch.place_of(rows)
        assert {int(p): int(r) for r, p in zip(rows, found, strict=True) if p >= 0} == owner


def test_without_memory_places_go_to_the_rows_that_came_since_the_last_round() -> None:
    sketch = HotSketch(2)
    for first in (0, 2, 4):
        rows = torch.tensor([first, first + 1])
        sketch.add(rows, torch.tensor([3.0, 2.0]))
        sketch.rebalance(0.0, 0.1)
        assert (sketch.place_of(torch.arange(6)) >= 0).nonzero().flatten().tolist() == rows.tolist()


def test_what_is_hot_is_found_in_a_skewed_stream_and_gives_way_when_the_stream_turns() -> None:
    generator = torch.Generator().manual_seed(0)
    sketch = HotSketch(50)
    rare = 2000

    def stream(first: int) -> set[int]:
        for _ in range(200):
            rows = torch.cat(
                [torch.arange(first, first + 40), torch.randint(100, rare, (60,), generator=generator)]
            )
            distinct, counts = rows.unique(return_counts=True)
            sketch.add(distinct, counts.float())
            sketch.rebalance(0.95, 0.1)
        return set((sketch.place_of(torch.arange(rare)) >= 0).nonzero().flatten().tolist())

    assert len(stream(0) & set(range(40))) >= 36
    turned = stream(50)
    assert len(turned & set(range(50, 90))) >= 36 and not turned & set(range(40))


def test_a_newcomer_inherits_what_it_displaces() -> None:
    sketch = HotSketch(1)
    for row, amount in enumerate((5.0, 2.0, 3.0, 4.0)):
        add(sketch, {row: amount})
    add(sketch, {9: 1.0})
    assert int(sketch.find(torch.tensor([1]))) == NONE
    assert float(sketch.importance[sketch.find(torch.tensor([9]))]) == 3.0


def test_a_bucket_of_four_slots_takes_48_bytes_and_sizes_are_checked() -> None:
    assert HotSketch(7).nbytes == 7 * SLOTS * SLOT_BYTES == 7 * 48
    with pytest.raises(ValueError, match="1 to"):
        HotSketch(0)


def test_rows_of_32_bits_are_those_of_64_and_shapes_must_fit() -> None:
    ours, theirs = HotSketch(3), HotSketch(3)
    rows, amounts = torch.arange(20), torch.arange(20.0)
    ours.add(rows.int(), amounts)
    theirs.add(rows, amounts)
    assert torch.equal(ours.rows, theirs.rows) and torch.equal(ours.importance, theirs.importance)
    assert torch.equal(ours.find(rows.int()), theirs.find(rows))
    for wrong in ((rows, amounts[:3]), (rows.view(4, 5), amounts), (rows.float(), amounts)):
        with pytest.raises(ValueError, match="shape"):
            ours.add(*wrong)
