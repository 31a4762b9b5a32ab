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
