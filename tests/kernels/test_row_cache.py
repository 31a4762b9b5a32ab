"""The cache against its row-by-row reference, and what must always hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.row_cache import EMPTY, ReferenceCache, RowCache


@given(
    rows=st.integers(1, 60),
    slots=st.integers(1, 40),
    ways=st.sampled_from([1, 2, 4, 32]),
    policy=st.sampled_from(["lru", "lfu"]),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=80)
def test_rows_lie_where_the_reference_puts_them(
    rows: int, slots: int, ways: int, policy: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    cache, slow = RowCache(rows, slots, ways, policy), ReferenceCache(rows, slots, ways, policy)
    for _ in range(12):
        # skewed, with repeats; some steps use nothing
        ids = (
            rows * torch.rand(int(torch.randint(0, 30, (), generator=generator)), generator=generator) ** 3
        ).long()
        unique, uses = ids.unique(return_counts=True)
        before = dict(zip(*(part.tolist() for part in cache.rows()), strict=True))
        placed = cache.place(unique, uses)
        assert placed.slot.tolist() == slow.place(unique.tolist(), uses.tolist())
        assert cache.tags.tolist() == slow.tags
        held = cache.rows()[0].tolist()
        assert len(set(held)) == len(held)  # no row twice
        for row, slot, was_there in zip(
            unique.tolist(), placed.slot.tolist(), placed.was_there.tolist(), strict=True
        ):
            assert was_there == (row in before)
            assert slot == EMPTY or cache.tags[slot] == row
            assert not was_there or before[row] == slot
        gone = set(before) - set(held)
        assert gone == set(placed.evicted.tolist())
        assert [before[row] for row in placed.evicted.tolist()] == placed.freed.tolist()
        assert not gone & set(unique.tolist())


def test_a_cache_of_all_rows_evicts_only_where_a_set_is_full() -> None:
    cache = RowCache(100, 100, 100, "lru")
    first = cache.place(torch.arange(100), torch.ones(100, dtype=torch.int64))
    assert (first.slot >= 0).all() and len(first.evicted) == 0
    again = cache.place(torch.arange(100), torch.ones(100, dtype=torch.int64))
    assert again.was_there.all() and torch.equal(again.slot, first.slot)


def test_frequent_rows_stay_under_lfu_and_recent_ones_under_lru() -> None:
    hot, scan = torch.tensor([0, 1]), torch.arange(2, 40)
    kept = {}
    for policy in ("lru", "lfu"):
        cache = RowCache(40, 4, 4, policy)
        cache.place(hot, torch.tensor([50, 50]))
        for row in scan:
            cache.place(row.view(1), torch.ones(1, dtype=torch.int64))
        kept[policy] = set(cache.rows()[0].tolist())
    assert {0, 1} <= kept["lfu"] and not {0, 1} & kept["lru"]


def test_nbytes_count_a_tag_a_slot_and_a_stamp_a_slot_or_a_row() -> None:
    assert RowCache(1000, 64, 32, "lru").nbytes == 64 * 8
    assert RowCache(1000, 64, 32, "lfu").nbytes == 64 * 4 + 1000 * 4


def test_other_policies_and_too_many_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="lru or lfu"):
        RowCache(10, 4, 4, "fifo")
    with pytest.raises(ValueError, match=r"below 2\^31"):
        RowCache(2**31, 4, 4, "lru")


@pytest.mark.parametrize("path", ["native", "torch"])
def test_uses_beyond_int32_count_as_the_most_that_it_holds(path: str) -> None:
    cache = RowCache(8, 2, 2, "lfu")
    place = cache.place if path == "native" else cache._torch_place
    one = torch.ones(1, dtype=torch.int64)
    for _ in range(3):
        place(torch.tensor([0, 1]), torch.tensor([2**30, 1]))
    placed = place(torch.tensor([2, 3]), one.repeat(2) * 10)
    assert cache.stamps.tolist()[:2] == [2**31 - 1, 3]
    assert 0 in cache.tags.tolist() and placed.evicted.tolist() == [1], "the row of the most uses stays"
