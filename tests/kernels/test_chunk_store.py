import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.chunk_store import ABSENT, ChunkStore
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

    def newcomers() -> None:
        """What came since the last call starts from the store's weights, whatever they are."""
        for row, chunk in (pointers() != ABSENT).nonzero().tolist():
            if (row, chunk) not in held:
                weight = store.pool[pointers()[row, chunk].long()].clone().unsqueeze(0)
                assert weight.abs().sum() > 0
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
    for state in store.state.values():
        assert state[store.pointers[7, 1].long()].abs().sum() == 0


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
