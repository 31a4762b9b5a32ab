"""The chunk store in C++ against its references and against torch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native, poisoned

from autoembed_kernels import chunk_rounds, chunk_step
from autoembed_kernels.chunk_look_up import (
    ABSENT,
    chunk_look_up,
    native_chunk_look_up,
    reference,
    torch_chunk_look_up,
)
from autoembed_kernels.chunk_rounds import admit, choose_moves, torch_admit, torch_choose_moves
from autoembed_kernels.chunk_step import native_chunk_step, number_entries, torch_chunk_step
from autoembed_kernels.dedupe import dedupe, sum_repeats
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer

DIMS = st.sampled_from([1, 2, 3, 4, 7, 8, 13, 16, 17, 32, 64, 65])
SEEDS = st.integers(0, 2**32)
few = settings(deadline=None, max_examples=40)


@st.composite
def stores(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """pool, pointers and entries; no place twice, some ids without an entry."""
    entries, chunks, places = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(SEEDS))
    pool = torch.randn(places, draw(DIMS), generator=generator)
    pointers = torch.full((entries * chunks,), ABSENT, dtype=torch.int32)
    held = draw(st.integers(0, min(places, len(pointers))))
    at = torch.randperm(len(pointers), generator=generator)[:held]
    pointers[at] = torch.randperm(places, generator=generator)[:held].int()
    entry = None
    if draw(st.booleans()):
        entry = torch.full((entries + 4,), ABSENT, dtype=torch.int32)
        met = draw(st.integers(0, entries))
        entry[torch.randperm(entries + 4, generator=generator)[:met]] = torch.arange(met, dtype=torch.int32)
    return pool, pointers.view(entries, chunks), entry


def ids_of(pointers: torch.Tensor, entry: torch.Tensor | None) -> int:
    return len(pointers) if entry is None else len(entry)


@given(stores(), st.integers(0, 90), st.sampled_from([torch.int64, torch.int32]), st.integers(1, 3), SEEDS)
@few
def test_vectors_are_those_that_the_reference_finds_chunk_by_chunk(
    store: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    count: int,
    dtype: torch.dtype,
    threads: int,
    seed: int,
) -> None:
    pool, pointers, entry = store
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, ids_of(pointers, entry), (count,), generator=generator).to(dtype)
    expected = reference(pool, pointers, entry, rows)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        out = poisoned(count, pointers.shape[1] * pool.shape[1])
        found = native_chunk_look_up(native(), pool, pointers, entry, rows, out)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found.double(), expected)
    assert torch.equal(torch_chunk_look_up(pool, pointers, entry, rows), found)


def test_all_look_ups_of_one_row_read_it_and_a_pool_with_infinity_reads_zero_where_nothing_is() -> None:
    pool = torch.tensor([[math.inf, 2.0], [3.0, math.nan]])
    pointers = torch.tensor([[ABSENT, 0], [1, ABSENT]], dtype=torch.int32)
    for look_up in (chunk_look_up, torch_chunk_look_up):
        found = look_up(pool, pointers, None, torch.tensor([0] * 70))
        assert torch.equal(found, torch.tensor([[0.0, 0.0, math.inf, 2.0]]).expand(70, 4))
    assert chunk_look_up(pool, pointers, None, torch.zeros(0, dtype=torch.int64)).shape == (0, 4)


@pytest.mark.parametrize("row", [-1, 3, 2**40, -(2**62)])
@pytest.mark.parametrize("virtual", [False, True])
def test_a_row_out_of_range_is_told(row: int, virtual: bool) -> None:
    native()
    pool, pointers = torch.randn(4, 2), torch.full((3, 2), ABSENT, dtype=torch.int32)
    entry = torch.full((3,), ABSENT, dtype=torch.int32) if virtual else None
    with pytest.raises(IndexError, match=f"row {row} at place 1 is out of range, there are 3"):
        chunk_look_up(pool, pointers, entry, torch.tensor([0, row, 1]))
    if entry is not None:
        with pytest.raises(IndexError, match=f"row {row} at place 1"):
            number_entries(entry, torch.tensor([0, row]), 0)
        assert (entry == ABSENT).all()
    utility = torch.zeros(3, 2)
    before = utility.clone()
    with pytest.raises(IndexError, match=f"entry {row} at place 0 is out of range, there are 3"):
        chunk_step.chunk_step(
            RowOptimizer("sgd"), pool, {}, utility, pointers, torch.tensor([row]), torch.ones(1, 4), 0.1
        )
    with pytest.raises(IndexError, match=f"entry {row} at place 1"):
        admit(pointers, torch.tensor([0, row]), torch.arange(4, dtype=torch.int32), 4)
    assert torch.equal(utility, before) and (pointers == ABSENT).all()


@given(stores(), st.sampled_from(OPTIMIZERS), st.sampled_from([0.0, 0.1]), st.integers(0, 60), SEEDS)
@few
def test_steps_give_what_the_reference_gives_and_the_same_bits_for_any_threads_and_split(
    store: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    name: str,
    l2: float,
    lookups: int,
    seed: int,
) -> None:
    pool, pointers, _ = store
    optimizer = RowOptimizer(name, l2=l2)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, len(pointers), (lookups,), generator=generator)
    unique, repeats = dedupe(rows, len(pointers))
    gradient = torch.randn(lookups, pointers.shape[1] * pool.shape[1], generator=generator)
    summed = sum_repeats(gradient, repeats.order, repeats.starts)
    start = {"weight": pool, **optimizer.state(pool)}
    start["utility"] = torch.rand(pointers.shape, generator=generator)

    def after(step: object, dtype: torch.dtype, *arguments: object) -> dict[str, torch.Tensor]:
        made = {
            each: t.clone() if t.dtype == torch.int32 else t.to(dtype, copy=True) for each, t in start.items()
        }
        state = {each: made[each] for each in optimizer.state_names}
        for _ in range(2):
            step(optimizer, made["weight"], state, made["utility"], pointers, *arguments)  # type: ignore[operator]
        return made

    expected = after(chunk_step.reference, torch.float64, unique, summed.double(), 0.1)
    by_torch = after(torch_chunk_step, torch.float32, unique, summed, 0.1)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            step = lambda *held: native_chunk_step(native(), *held)  # noqa: E731
            found.append(after(step, torch.float32, unique, summed, 0.1))
            found.append(after(step, torch.float32, unique.int(), gradient, 0.1, repeats))
    finally:
        torch.set_num_threads(before)
    for each, value in expected.items():
        # as test_native_rows does for updates: Adam divides by roots of small squares
        torch.testing.assert_close(found[0][each].to(value.dtype), value, rtol=2e-4, atol=2e-5)
        torch.testing.assert_close(by_torch[each].to(value.dtype), value, rtol=2e-4, atol=2e-5)
        assert all(torch.equal(found[0][each], other[each]) for other in found[1:])


@given(
    *(st.integers(1, 8), st.integers(1, 5), st.integers(0, 20), st.integers(0, 20), SEEDS),
    st.sampled_from([torch.int64, torch.int32]),
)
@few
def test_free_places_go_to_the_chunks_that_the_reference_gives_them_to(
    entries: int, chunks: int, free_count: int, behind: int, seed: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randperm(free_count + behind, generator=generator).int()
    pointers = torch.randint(-2, 3, (entries, chunks), generator=generator, dtype=torch.int32).clamp(min=-1)
    chosen = torch.randperm(entries, generator=generator)[: seed % (entries + 1)].to(dtype)
    slow, free = pointers.tolist(), stack[:free_count].tolist()
    chunk_rounds.reference_admit(slow, chosen.tolist(), free)
    for way in (admit, torch_admit):
        held = pointers.clone()
        assert way(held, chosen, stack, free_count) == len(free)
        assert held.tolist() == slow


@given(
    st.lists(st.tuples(st.integers(-1, 3), st.sampled_from([0.0, 0.5, 1.0, 1.5, math.nan])), max_size=30),
    st.sampled_from([0.0, 0.5, 0.98, 1.0]),
    st.sampled_from([(0.0, 0.0), (0.45, 0.55), (0.5, 0.5), (0.98, 0.98), (0.1, 2.0)]),
)
@few
def test_the_chunks_that_move_are_those_of_the_reference(
    held: list[tuple[int, float]], decay: float, bounds: tuple[float, float]
) -> None:
    pointers = torch.tensor([pointer for pointer, _ in held], dtype=torch.int32).view(-1, 1)
    utility = torch.tensor([u for _, u in held]).view(-1, 1)
    decayed = utility * decay
    exact = [float(torch.tensor(bound, dtype=torch.float32)) for bound in bounds]
    expected = chunk_rounds.reference_moves(pointers.flatten().tolist(), decayed.flatten().tolist(), *exact)
    for way in (choose_moves, torch_choose_moves):
        now = utility.clone()
        leave, come = way(pointers, now, decay, *bounds)
        assert (leave.tolist(), come.tolist()) == expected
        torch.testing.assert_close(now, decayed, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_moves_of_several_parts_are_those_of_torch(threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (3 * chunk_rounds.PART // 2 + 17, 2)
    pointers = torch.randint(-3, 2, shape, generator=generator, dtype=torch.int32).clamp(min=-1)
    utility = torch.rand(shape, generator=generator)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        ours, theirs = utility.clone(), utility.clone()
        found = choose_moves(pointers, ours, 0.98, 0.2, 0.4)
        expected = torch_choose_moves(pointers, theirs, 0.98, 0.2, 0.4)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(ours, theirs)
    assert all(map(torch.equal, found, expected)) and all(len(part) > 1000 for part in found)


@given(st.integers(1, 40), st.integers(0, 40), SEEDS)
@few
def test_ids_met_for_the_first_time_get_the_next_entries_in_order(ids: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    entry = torch.full((ids,), ABSENT, dtype=torch.int32)
    taken, numbers = 0, {}
    for _ in range(3):
        rows = torch.randperm(ids, generator=generator)[:count]
        entries, taken = number_entries(entry, rows, taken)
        for row in rows.tolist():
            numbers.setdefault(row, len(numbers))
        assert entries.tolist() == [numbers[row] for row in rows.tolist()]
        assert taken == len(numbers)
        assert entry.tolist() == [numbers.get(row, ABSENT) for row in range(ids)]


def _small_store(optimizer: RowOptimizer) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """A pool (9, 4), its state and pointers (5, 2), some of them absent."""
    pool = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    pointers = torch.tensor([[0, 1], [2, -1], [-1, -1], [3, 4], [8, 7]], dtype=torch.int32)
    return pool, optimizer.state(pool), pointers


def test_pointers_and_state_in_other_dtypes_give_what_the_usual_ones_give() -> None:
    optimizer = RowOptimizer("adam")
    pool, state, pointers = _small_store(optimizer)
    entries, gradient = torch.tensor([4, 0, 2]), torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    entry = torch.tensor([3, -1, 0, 4], dtype=torch.int32)
    for held in (None, entry):
        rows = torch.tensor([2, 0, 3])
        wide = chunk_look_up(pool, pointers.long(), None if held is None else held.long(), rows)
        assert torch.equal(wide, chunk_look_up(pool, pointers, held, rows))
    other, utility, other_utility = pool.clone(), torch.zeros(5, 2), torch.zeros(5, 2)
    wide_state = {key: held.long() if key == "touches" else held.double() for key, held in state.items()}
    chunk_step.chunk_step(optimizer, pool, state, utility, pointers, entries, gradient, 0.1)
    held = (other, wide_state, other_utility, pointers.long(), entries.int())
    chunk_step.chunk_step(optimizer, *held, gradient, 0.1)
    # moments in 64 bits instead of 32, norms by another order of sums
    torch.testing.assert_close(other, pool, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other_utility, utility, rtol=1e-6, atol=1e-6)
    assert torch.equal(wide_state["touches"], state["touches"].long())


def test_a_step_of_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    optimizer = RowOptimizer("adagrad")
    pool, state, pointers = _small_store(optimizer)
    before, utility = pool.clone(), torch.zeros(5, 2)
    entries, gradient = torch.tensor([4, 0]), torch.ones(2, 8)
    _, repeats = dedupe(torch.tensor([4, 0, 4]), 5)
    for given_state, useful, where, g, spans in [
        (state, utility, entries, gradient[:1], None),
        (state, utility, entries, gradient[:, :4], None),
        (state, utility[:3], entries, gradient, None),
        (state, utility, entries.view(1, 2), gradient, None),
        ({}, utility, entries, gradient, None),
        ({"square_sum": state["square_sum"][:2]}, utility, entries, gradient, None),
        (state, utility, entries, gradient, repeats),
        (state, utility, entries[:1], torch.ones(3, 8), repeats),
    ]:
        with pytest.raises(ValueError, match=r"expected|needs the state"):
            chunk_step.chunk_step(optimizer, pool, given_state, useful, pointers, where, g, 0.1, spans)
    assert torch.equal(pool, before) and not utility.any() and not state["square_sum"].any()


def test_look_ups_and_rounds_of_other_shapes_are_refused() -> None:
    pool, _, pointers = _small_store(RowOptimizer("sgd"))
    rows = torch.tensor([[0, 1]])
    for call in (
        lambda: chunk_look_up(pool, pointers, None, rows),
        lambda: chunk_look_up(pool, pointers[0], None, rows[0]),
        lambda: chunk_look_up(pool[0], pointers, None, rows[0]),
        lambda: choose_moves(pointers, torch.zeros(5, 3), 0.9, 0.1, 0.2),
        lambda: number_entries(pointers, rows[0], 0),
        lambda: number_entries(pointers[0], rows, 0),
    ):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            call()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_entries_are_numbered_in_any_whole_numbers(dtype: torch.dtype) -> None:
    entry = torch.tensor([-1, 2, -1, -1], dtype=dtype)
    entries, taken = number_entries(entry, torch.tensor([3, 1, 0], dtype=torch.int32), 5)
    assert entries.tolist() == [5, 2, 6] and taken == 7
    assert entry.tolist() == [6, 2, -1, 5]


@pytest.mark.parametrize("count", [-5, 4, 5000])
def test_more_free_places_than_there_are_or_less_than_none_are_refused(count: int) -> None:
    pointers, free = torch.full((4, 2), ABSENT, dtype=torch.int32), torch.arange(3, dtype=torch.int32)
    with pytest.raises(ValueError, match=f"0 to 3 are unused, got {count}"):
        admit(pointers, torch.arange(4), free, count)
    assert (pointers == ABSENT).all()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_places_are_taken_in_any_whole_numbers(dtype: torch.dtype) -> None:
    pointers, free = torch.full((2, 2), ABSENT, dtype=torch.int32), torch.arange(3, dtype=dtype)
    assert admit(pointers, torch.tensor([1, 0], dtype=torch.int16), free, 3) == 0
    assert pointers.tolist() == [[2, -1], [0, 1]]
