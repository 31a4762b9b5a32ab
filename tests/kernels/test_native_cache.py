"""The row cache in C++ against torch: the same slots, evictions and stamps, in the same order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native

from autoembed_kernels.cache_probe import cache_probe, native_cache_probe, reference, torch_cache_probe
from autoembed_kernels.row_cache import RowCache


@given(
    rows=st.integers(1, 80),
    slots=st.integers(1, 50),
    ways=st.sampled_from([1, 2, 3, 8, 9, 32]),
    policy=st.sampled_from(["lru", "lfu"]),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_all_that_a_step_does_is_what_torch_does(
    rows: int, slots: int, ways: int, policy: str, seed: int
) -> None:
    native()
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = RowCache(rows, slots, ways, policy), RowCache(rows, slots, ways, policy)
    for _ in range(10):
        count = int(torch.randint(0, 40, (), generator=generator))
        unique, uses = (rows * torch.rand(count, generator=generator) ** 3).long().unique(return_counts=True)
        # in any order: rows of a set come one after the other where they are ascending
        order = torch.randperm(len(unique), generator=generator)
        found = ours.place(unique[order], uses[order])
        expected = theirs._torch_place(unique[order], uses[order])
        for name in ("slot", "was_there", "evicted", "freed"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        assert torch.equal(ours.tags, theirs.tags) and torch.equal(ours.stamps, theirs.stamps)
        assert ours.step == theirs.step


@given(st.integers(1, 60), st.sampled_from([1, 2, 7, 8, 32, 33]), st.integers(0, 90), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_rows_are_found_where_the_reference_finds_them(slots: int, ways: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cache = RowCache(90, slots, ways, "lru")
    cache.place(torch.arange(90), torch.ones(90, dtype=torch.int64))
    rows = torch.randint(0, 90, (count,), generator=generator)
    expected = [reference(cache.tags.tolist(), cache.ways, row) for row in rows.tolist()]
    assert torch_cache_probe(cache.tags, cache.ways, rows).tolist() == expected
    before = torch.get_num_threads()
    try:
        for threads, dtype in ((1, torch.int64), (3, torch.int32)):
            torch.set_num_threads(threads)
            out = torch.full((count,), 2**40)
            given_rows = rows.to(dtype)
            found = native_cache_probe(native(), cache.tags, cache.ways, given_rows, 90, out)
            assert found.tolist() == expected
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("row", [-1, 9, 2**31, 2**32 + 3])
@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_a_row_out_of_range_is_told_and_changes_nothing(row: int, policy: str) -> None:
    native()
    cache = RowCache(9, 8, 2, policy)
    cache.place(torch.arange(5), torch.ones(5, dtype=torch.int64))
    tags, stamps, step = cache.tags.clone(), cache.stamps.clone(), cache.step
    rows = torch.tensor([0, row])
    with pytest.raises(IndexError, match=f"row {row} at place 1 is out of range, there are 9"):
        cache_probe(cache.tags, cache.ways, rows, 9)
    with pytest.raises(IndexError, match=f"row {row} at place 1"):
        cache.place(rows, torch.ones(2, dtype=torch.int64))
    assert torch.equal(cache.tags, tags) and torch.equal(cache.stamps, stamps) and cache.step == step


def test_a_large_step_moves_what_torch_moves() -> None:
    generator = torch.Generator().manual_seed(0)
    for policy in ("lru", "lfu"):
        ours, theirs = (RowCache(200_000, 10_000, 32, policy) for _ in range(2))
        for _ in range(4):
            drawn = (200_000 * torch.rand(20_000, generator=generator) ** 3).long()
            unique, uses = drawn.unique(return_counts=True)
            found, expected = ours.place(unique, uses), theirs._torch_place(unique, uses)
            assert torch.equal(found.slot, expected.slot) and torch.equal(found.evicted, expected.evicted)
        assert torch.equal(ours.tags, theirs.tags) and len(found.evicted) > 100


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_rows_and_uses_of_32_bits_are_placed_as_those_of_64(policy: str) -> None:
    ours, theirs = RowCache(100, 8, 2, policy), RowCache(100, 8, 2, policy)
    for rows in (torch.arange(12), torch.arange(5, 30, 3)):
        uses = rows % 3 + 1
        found, expected = ours.place(rows.int(), uses.int()), theirs.place(rows, uses)
        assert torch.equal(found.slot, expected.slot) and torch.equal(found.evicted, expected.evicted)
    assert torch.equal(ours.tags, theirs.tags) and torch.equal(ours.stamps, theirs.stamps)


@pytest.mark.parametrize("policy", ["lru", "lfu"])
def test_uses_that_do_not_fit_are_refused_and_nothing_moves(policy: str) -> None:
    cache, rows = RowCache(100, 8, 2, policy), torch.arange(50)
    for given_rows, uses in [(rows, rows[:2]), (rows.view(5, 10), rows.view(5, 10)), (rows, rows.float())]:
        with pytest.raises(ValueError, match="shape"):
            cache.place(given_rows, uses)
    assert cache.step == 0 and not cache.stamps.any() and (cache.tags == -1).all()


@pytest.mark.parametrize(("slots", "ways"), [(4, 8), (4, 0), (4, -2), (5, 2), (0, 1)])
def test_tags_that_are_not_sets_of_ways_are_refused(slots: int, ways: int) -> None:
    with pytest.raises(ValueError, match=rf"\({slots},\), expected \(sets \* ways,\) with {ways} ways"):
        cache_probe(torch.full((slots,), -1, dtype=torch.int32), ways, torch.arange(3), 10)


def test_tags_of_64_bits_are_probed_as_those_of_32() -> None:
    cache, rows = RowCache(100, 8, 2, "lru"), torch.arange(12)
    cache.place(rows, torch.ones_like(rows))
    assert torch.equal(cache_probe(cache.tags.long(), 2, rows, 100), cache.find(rows))
    with pytest.raises(ValueError, match="rows has shape"):
        cache.find(rows.view(3, 4))
