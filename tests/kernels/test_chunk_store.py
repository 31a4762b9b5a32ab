from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels import field_scales
from autoembed_kernels.chunk_store import _SAMPLES, ABSENT, ChunkStore
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, reference


def check_places(store: ChunkStore) -> None:
    """Every place of the pool is either free or pointed to, exactly once."""
    live = store.pointers[store.pointers != ABSENT].tolist()
    assert sorted(live + store.free[: store.free_count].tolist()) == list(range(len(store.pool)))


@given(
    st.integers(1, 12),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 20),
    st.sampled_from(OPTIMIZERS),
    st.integers(0, 2**32),
    st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_steps_and_rounds_do_what_a_dictionary_of_chunks_does(
    ids: int, chunks: int, places: int, name: str, seed: int, virtual: bool
) -> None:
    """The reference keeps every chunk that is present in a dictionary, with a state of its own."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = RowOptimizer(name)
    store = ChunkStore(ids, chunks, 2 * chunks, places, optimizer, 0.5, generator, virtual=virtual)
    everything = torch.arange(ids)

    def pointers() -> torch.Tensor:
        return store.pointers_of(everything)

    utility = torch.zeros(ids, chunks)
    held: dict[tuple[int, int], tuple[torch.Tensor, dict[str, torch.Tensor]]] = {}
    used: set[int] = set()  # places that were held

    def newcomers() -> None:
        """What came since the last call starts from zero, or in a place of nobody's from what is there."""
        for row, chunk in (pointers() != ABSENT).nonzero().tolist():
            if (row, chunk) not in held:
                place = int(pointers()[row, chunk])
                weight = store.pool[place].clone().unsqueeze(0)
                assert bool(weight.any()) == (place not in used)
                used.add(place)
                held[row, chunk] = weight, optimizer.state(weight)

    for _ in range(6):
        rows = torch.randperm(ids, generator=generator)[:5]
        free, before = store.free_count, (pointers() != ABSENT).sum()
        absent = int((pointers()[rows] == ABSENT).sum())
        store.admit(rows)
        assert (pointers() != ABSENT).sum() - before == min(free, absent)
        newcomers()
        gradient = torch.randn(len(rows), 2 * chunks, generator=generator)
        store.step(rows, gradient, 0.1)
        for row, slope in zip(rows.tolist(), gradient, strict=True):
            for chunk in range(chunks):
                part = slope[2 * chunk : 2 * chunk + 2].unsqueeze(0)
                utility[row, chunk] += part.norm()
                if (row, chunk) in held:
                    weight, state = held[row, chunk]
                    reference(optimizer, weight, state, torch.tensor([0]), part, 0.1)
        present = pointers() != ABSENT
        left, came = store.rebalance(0.9, 0.1)
        utility *= 0.9
        check_places(store)
        now = pointers() != ABSENT
        assert left == int((present & ~now).sum()) and came == int((now & ~present).sum())
        for row, chunk in (~now).nonzero().tolist():
            held.pop((row, chunk), None)
        newcomers()
        entries = everything if store.entry is None else store.entry.long()
        met = entries >= 0
        torch.testing.assert_close(store.utility[entries[met]], utility[met])
        assert not utility[~met].any()
        expected = torch.zeros(ids, chunks, 2)
        for (row, chunk), (weight, _) in held.items():
            expected[row, chunk] = weight[0]
        torch.testing.assert_close(store.look_up(everything), expected.flatten(1), rtol=1e-4, atol=1e-5)


def test_without_memory_the_pool_goes_to_what_came_since_the_last_round() -> None:
    store = ChunkStore(10, 1, 4, 2, RowOptimizer("adam"), 0.01, torch.Generator().manual_seed(0))
    for rows in ([3, 4], [7, 8], [0, 3]):
        store.step(torch.tensor(rows), torch.ones(2, 4), 0.1)
        store.rebalance(0.0, 0.1)
        assert (store.pointers >= 0).nonzero()[:, 0].tolist() == rows


def test_the_pool_goes_to_the_chunks_of_larger_gradients_and_follows_them() -> None:
    store = ChunkStore(10, 2, 4, 2, RowOptimizer("adam"), 0.01, torch.Generator().manual_seed(0))
    large = torch.tensor([[0.0, 0.0, 5.0, 5.0], [5.0, 5.0, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1]])
    for _ in range(3):
        store.step(torch.tensor([3, 4, 5]), large, 0.1)
        store.rebalance(0.5, 0.1)
    assert (store.pointers >= 0).nonzero().tolist() == [[3, 1], [4, 0]]
    came = 0
    for _ in range(20):
        store.step(torch.tensor([7, 8]), large[:2] * torch.tensor([[2.0], [1.0]]), 0.1)
        came = store.rebalance(0.5, 0.1)[1]
        if came:
            break
    assert [7, 1] in (store.pointers >= 0).nonzero().tolist()
    for state in (store.pool, *store.state.values()):
        assert state[store.pointers[7, 1].long()].abs().sum() == 0, "what comes back grows from zero"


def test_free_places_go_to_whoever_comes_first_and_a_full_pool_takes_nobody() -> None:
    store = ChunkStore(6, 2, 4, 4, RowOptimizer("adam"), 0.01, torch.Generator().manual_seed(0))
    assert store.look_up(torch.tensor([3, 5])).abs().sum() == 0
    store.admit(torch.tensor([3, 5]))
    assert (store.look_up(torch.tensor([3, 5])) != 0).all() and store.free_count == 0
    store.admit(torch.tensor([1]))
    assert store.look_up(torch.tensor([1])).abs().sum() == 0


def test_what_is_held_is_less_than_the_dense_table_and_its_state() -> None:
    store = ChunkStore(1000, 2, 16, 200, RowOptimizer("adam"), 0.01, torch.Generator())
    # pointers and utilities 8 bytes a chunk; 8 values with two moments, a touch count and a free place
    assert store.nbytes == 2000 * 8 + 200 * (8 * 12 + 4 + 4) < 1000 * 16 * 12


def test_virtual_ids_cost_four_bytes_until_they_are_met() -> None:
    store = ChunkStore(100_000, 4, 16, 50, RowOptimizer("sgd"), 0.01, torch.Generator(), virtual=True)
    empty = 4 * 100_000 + 50 * (4 * 4 + 4)
    assert store.nbytes == empty
    assert not store.look_up(torch.tensor([0, 99_999])).any() and store.nbytes == empty
    generator = torch.Generator().manual_seed(0)
    met = torch.randperm(100_000, generator=generator)[:3000]
    for rows in met.split(97):
        store.admit(rows)
        store.step(rows, torch.ones(len(rows), 16), 0.1)
        store.rebalance(0.98, 0.1)
    assert store.entry_count == 3000
    # the room that is ahead of them is at most an eighth
    assert empty + 3000 * 8 * 4 <= store.nbytes <= empty + 3000 * 8 * 4 * 9 / 8
    check_places(store)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_virtual_ids_train_as_others_do(ids: int, places: int, seed: int) -> None:
    stores = [
        ChunkStore(
            *(ids, 2, 4, places, RowOptimizer("adagrad"), 0.5, torch.Generator().manual_seed(seed)),
            virtual=virtual,
        )
        for virtual in (False, True)
    ]
    generator = torch.Generator().manual_seed(seed + 1)
    for _ in range(5):
        rows = torch.randperm(ids, generator=generator)[:6]
        gradient = torch.randn(len(rows), 4, generator=generator)
        found = []
        for store in stores:
            store.admit(rows)
            store.step(rows, gradient, 0.1)
            moved = store.rebalance(0.9, 0.1)
            found.append((*moved, store.pointers_of(torch.arange(ids)).ge(0)))
        assert found[0][:2] == found[1][:2] and torch.equal(found[0][2], found[1][2])


def test_sizes_that_make_no_store_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be cut into 3 chunks"):
        ChunkStore(5, 3, 16, 2, RowOptimizer(), 0.01, torch.Generator())
    with pytest.raises(ValueError, match="got 0"):
        ChunkStore(5, 2, 16, 0, RowOptimizer(), 0.01, torch.Generator())


@given(
    st.integers(1, 12),
    st.sampled_from([1, 2, 3]),
    st.integers(1, 20),
    st.integers(0, 2**32),
    st.booleans(),
    st.data(),
)
@settings(deadline=None, max_examples=40)
def test_a_pool_that_shrinks_keeps_the_most_useful_chunks_with_their_state(
    ids: int, chunks: int, places: int, seed: int, virtual: bool, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    store = ChunkStore(ids, chunks, 2 * chunks, places, RowOptimizer("adam"), 0.5, generator, virtual=virtual)
    everything = torch.arange(ids)
    for _ in range(3):
        rows = torch.randperm(ids, generator=generator)[:4]
        store.admit(rows)
        store.step(rows, torch.randn(len(rows), 2 * chunks, generator=generator), 0.1)
    before, vectors = store.pointers_of(everything), store.look_up(everything).view(ids, chunks, 2)
    state = {name: value.clone() for name, value in store.state.items()}
    utility = {
        (row, chunk): float(store.utility[row if store.entry is None else int(store.entry[row]), chunk])
        for row, chunk in (before != ABSENT).nonzero().tolist()
    }
    left = data.draw(st.integers(1, places))
    gone = store.shrink(left)
    after = store.pointers_of(everything)
    check_places(store)
    assert len(store.pool) == len(store.free) == left and gone == max(0, len(utility) - left)
    kept = {tuple(pair) for pair in (after != ABSENT).nonzero().tolist()}
    assert kept <= set(utility) and len(kept) == len(utility) - gone
    if gone:
        assert min(utility[pair] for pair in kept) >= max(
            u for pair, u in utility.items() if pair not in kept
        )
    now = store.look_up(everything).view(ids, chunks, 2)
    for row, chunk in kept:
        assert torch.equal(now[row, chunk], vectors[row, chunk])
        for name, value in state.items():
            assert torch.equal(store.state[name][after[row, chunk]], value[before[row, chunk]])
    free = store.free[: store.free_count].long()
    assert not any(value[free].any() for value in store.state.values())
    assert store.pool[free].abs().sum(1).all()


Fields = list[tuple[int, int]]


@st.composite
def stores_of_fields(draw: st.DrawFn) -> tuple[ChunkStore, Fields]:
    """Fields of no, one or several rows, some all zero, each with utilities in a scale of its own."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 9]), min_size=1, max_size=4).filter(any))
    ends = np.cumsum([0, *sizes]).tolist()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    chunks, places = draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 25))
    store = ChunkStore(ends[-1], chunks, 2 * chunks, places, RowOptimizer("adam"), 0.5, generator)
    fields = list(pairwise(ends))
    for first, last in fields:
        scale = draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
        of_field = scale * torch.rand(last - first, chunks, generator=generator)
        store.utility[first:last] = of_field * (torch.rand(of_field.shape, generator=generator) < 0.8)
    store.admit(torch.randperm(ends[-1], generator=generator)[: draw(st.integers(0, ends[-1]))])
    return store, fields


def compared(store: ChunkStore, fields: Fields) -> dict[tuple[int, int], np.float32]:
    """What every chunk is compared by, chunk by chunk."""
    scales = field_scales.reference(store.utility.tolist(), fields)
    return {
        (row, chunk): np.float32(store.utility[row, chunk]) / np.float32(scale)
        for (first, last), scale in zip(fields, scales, strict=True)
        for row in range(first, last)
        for chunk in range(store.utility.shape[1])
    }


def held_by(store: ChunkStore) -> set[tuple[int, int]]:
    return {(row, chunk) for row, chunk in (store.pointers != ABSENT).nonzero().tolist()}


@given(stores_of_fields(), st.sampled_from([0.1, 0.4]))
@settings(deadline=None, max_examples=80)
def test_a_round_by_fields_moves_what_is_furthest_from_the_threshold_of_divided_utilities(
    made: tuple[ChunkStore, Fields], margin: float
) -> None:
    store, fields = made
    useful, before, raw = compared(store, fields), held_by(store), store.utility.clone()
    descending, places = sorted(useful.values(), reverse=True), len(store.pool)
    threshold = 0.0
    if places < len(useful):
        threshold = (float(descending[places - 1]) + float(descending[places])) / 2
    leave = {c for c in before if useful[c] < (1 - margin) * threshold}
    come = [c for c in useful if c not in before and useful[c] > max(0.0, (1 + margin) * threshold)]
    room = places - len(before - leave)
    come = sorted(come, key=lambda c: -useful[c])[:room]
    assert store.rebalance(1.0, margin, fields) == (len(leave), len(come))
    assert held_by(store) == (before - leave) | set(come)
    assert torch.equal(store.utility, raw), "utilities stay as they are"
    check_places(store)


@given(stores_of_fields(), st.data())
@settings(deadline=None, max_examples=60)
def test_a_pool_that_shrinks_by_fields_keeps_the_largest_divided_utilities(
    made: tuple[ChunkStore, Fields], data: st.DataObject
) -> None:
    store, fields = made
    useful, before = compared(store, fields), held_by(store)
    places = data.draw(st.integers(1, len(store.pool)))
    gone = store.shrink(places, fields)
    kept = held_by(store)
    assert kept <= before and gone == len(before - kept) == max(0, len(before) - places)
    if gone:
        assert min(useful[c] for c in kept) >= max(useful[c] for c in before - kept)
    check_places(store)


@pytest.mark.parametrize("ids", [1, 7, _SAMPLES // 2 + 1])
def test_of_one_field_rounds_are_to_the_bit_those_without_fields(ids: int) -> None:
    """Beyond _SAMPLES chunks the threshold is read from a sample; the field's scale draws nothing."""
    stores = []
    for fields in (None, [(0, ids)], [(0, 0), (0, ids), (ids, ids)]):
        generator = torch.Generator().manual_seed(5)
        store = ChunkStore(ids, 2, 4, ids // 2 + 1, RowOptimizer("adagrad"), 0.5, generator)
        draws = torch.Generator().manual_seed(6)
        moved = []
        for _ in range(4):
            rows = torch.randperm(ids, generator=draws)[: ids // 2 + 1]
            store.admit(rows)
            store.step(rows, torch.randn(len(rows), 4, generator=draws), 0.1)
            moved.append(store.rebalance(0.9, 0.0, fields))
        moved.append((store.shrink(ids // 3 + 1, fields), 0))
        stores.append((moved, store))
    (moved, plain), *others = stores
    assert ids < 3 or any(left + came for left, came in moved)
    for theirs, store in others:
        assert theirs == moved and store.free_count == plain.free_count
        for name in ("pointers", "utility", "pool", "free"):
            assert torch.equal(getattr(store, name), getattr(plain, name))


@pytest.mark.parametrize("by_field", [False, True])
def test_a_field_of_gradients_1000_times_smaller_keeps_its_share_only_where_fields_are_told(
    by_field: bool,
) -> None:
    generator = torch.Generator().manual_seed(1)
    store = ChunkStore(40, 2, 4, 40, RowOptimizer("sgd"), 0.5, generator)
    fields = [(0, 20), (20, 40)]
    spread = torch.rand(20, 4, generator=generator) + 0.1
    gradient = torch.cat([spread, 1e-3 * spread])  # alike but for the scale
    for _ in range(10):
        rows = torch.randperm(40, generator=generator)
        store.admit(rows)
        store.step(rows, gradient[rows], 0.01)
        store.rebalance(0.9, 0.1, fields if by_field else None)
    large, small = (int((store.pointers[first:last] != ABSENT).sum()) for first, last in fields)
    if by_field:
        assert large >= 15 and small >= 15
    else:
        assert (large, small) == (40, 0)


def test_a_threshold_that_is_read_from_a_sample_compares_fields_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    store = ChunkStore(2 * _SAMPLES, 1, 2, _SAMPLES // 2, RowOptimizer("sgd"), 0.5, generator)
    fields = [(0, _SAMPLES), (_SAMPLES, 2 * _SAMPLES)]
    store.utility[:] = torch.rand(2 * _SAMPLES, 1, generator=generator)
    store.utility[_SAMPLES:] *= 1e-3
    store.rebalance(1.0, 0.0, fields)
    # a quarter of all, of each field the upper quarter
    held = [(store.pointers[first:last] != ABSENT).sum() / (last - first) for first, last in fields]
    assert held == pytest.approx([0.25, 0.25], abs=0.01)
