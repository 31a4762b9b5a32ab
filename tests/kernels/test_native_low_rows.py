"""Updates of rows in 16 and 8 bits in C++ against the same in torch: the same bits, and the right chances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native

from autoembed_kernels.low_row_update import (
    low_row_update,
    low_row_values,
    native_low_row_update,
    native_low_row_values,
    torch_low_row_update,
    write_low_rows,
)
from autoembed_kernels.repeated_update import repeated_low_row_update
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer

FORMATS = (torch.float16, torch.bfloat16, torch.int8)
DIMS = st.sampled_from([1, 3, 7, 8, 13, 16, 17, 32, 64, 65])
CHANCES = st.one_of(st.none(), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)))
Table = tuple[torch.Tensor, torch.Tensor | None]


def stored(values: torch.Tensor, dtype: torch.dtype) -> Table:
    """Weight and steps of rows that hold the values, to the nearest."""
    weight = torch.zeros(values.shape, dtype=dtype)
    steps = torch.zeros(len(values), dtype=torch.float16) if dtype == torch.int8 else None
    write_low_rows(weight, steps, torch.arange(len(values)), values, None)
    return weight, steps


def copied(table: Table) -> Table:
    weight, steps = table
    return weight.clone(), None if steps is None else steps.clone()


def bits(table: Table) -> list[torch.Tensor]:
    return [
        one.view(torch.int16 if one.element_size() == 2 else torch.int8) for one in table if one is not None
    ]


@given(
    st.sampled_from(OPTIMIZERS),
    st.sampled_from(FORMATS),
    DIMS,
    st.integers(1, 40),
    st.sampled_from([1e-6, 3e-4, 1.0, 3e3]),
    st.sampled_from([0.0, 0.3]),
    CHANCES,
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=120)
def test_updates_have_the_bits_of_the_float32_update_and_the_casts_of_torch(
    name: str,
    dtype: torch.dtype,
    dim: int,
    height: int,
    size: float,
    l2: float,
    chance: tuple[int, int] | None,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = RowOptimizer(name, betas=(0.8, 0.95), l2=l2)
    table = stored(size * torch.randn(height, dim, generator=generator), dtype)
    other = copied(table)
    state, other_state = (optimizer.state(torch.zeros(height, dim)) for _ in range(2))
    rate = 0.01 * min(size, 1.0)  # large rows stay in float16's range
    for update in range(3):
        count = int(torch.randint(height + 1, (), generator=generator))
        rows = torch.randperm(height, generator=generator)[:count]
        gradient = size * torch.randn(count, dim, generator=generator)
        words = None if chance is None else (chance[0], chance[1] + update)
        values = low_row_values(*other, rows)
        native_low_row_update(native(), optimizer, *table, state, rows, gradient, rate, words)
        torch_low_row_update(optimizer, *other, other_state, rows, values, gradient, rate, words)
    for ours, theirs in zip(bits(table), bits(other), strict=True):
        assert torch.equal(ours, theirs)
    for key in optimizer.state_names:
        assert torch.equal(state[key], other_state[key])


@given(st.sampled_from(FORMATS), DIMS, st.integers(1, 40), st.integers(0, 60), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_rows_are_read_as_torch_reads_them(
    dtype: torch.dtype, dim: int, height: int, count: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, steps = stored(torch.randn(height, dim, generator=generator), dtype)
    rows = torch.randint(height, (count,), generator=generator)
    expected = weight[rows].float()
    if steps is not None:
        expected = expected * steps[rows].float().unsqueeze(1)
    assert torch.equal(native_low_row_values(native(), weight, steps, rows), expected)
    with pytest.raises(IndexError, match="place 0"):
        native_low_row_values(native(), weight, steps, torch.tensor([height]))


@pytest.mark.parametrize("dtype", FORMATS)
def test_small_steps_arrive_on_average_and_each_lands_on_a_neighbour(dtype: torch.dtype) -> None:
    rows, dim, step = 40_000, 4, 1e-5
    start = torch.full((rows, dim), 0.3)
    # the largest number of the row, which no gradient moves: 127 of steps that have few bits, and stay
    start[:, 0] = 127 / 256
    weight, steps = stored(start, dtype)
    before = low_row_values(weight, steps, torch.arange(rows))
    optimizer = RowOptimizer("sgd")
    gradient = torch.ones(rows, dim)
    gradient[:, 0] = 0
    places = torch.arange(rows)
    native_low_row_update(native(), optimizer, weight, steps, {}, places, gradient, step, (7, 3))
    moved = (low_row_values(weight, steps, places) - before)[:, 1:].double()
    spacing = {torch.float16: 2.0**-12, torch.bfloat16: 2.0**-9}.get(dtype, 0.0)
    if steps is not None:
        spacing = 2.0**-8
        assert torch.equal(steps, torch.full_like(steps, spacing))
    assert set((moved / spacing).round().flatten().tolist()) == {-1.0, 0.0}
    # the mean of 120,000 draws of a chance p of one spacing, within four standard errors
    chance = step / spacing
    error = spacing * (chance * (1 - chance) / moved.numel()) ** 0.5
    assert abs(float(moved.mean()) + step) < 4 * error


@pytest.mark.parametrize("dtype", FORMATS)
def test_rows_that_are_no_numbers_stay_so(dtype: torch.dtype) -> None:
    weight, steps = stored(torch.full((2, 9), 127 / 128), dtype)  # which all formats hold exactly
    gradient = torch.zeros(2, 9)
    gradient[0, 4] = float("nan")
    native_low_row_update(
        native(), RowOptimizer("sgd"), weight, steps, {}, torch.arange(2), gradient, 0.1, (1, 1)
    )
    values = low_row_values(weight, steps, torch.arange(2))
    assert values[0, 4].isnan()
    assert torch.equal(values[1], torch.full((9,), 127 / 128))


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("wrong", [-1, 5, 2**40])
def test_a_row_out_of_range_raises_and_changes_nothing(dtype: torch.dtype, wrong: int) -> None:
    table = stored(torch.ones(5, 3), dtype)
    before = copied(table)
    optimizer = RowOptimizer("adam")
    state = optimizer.state(torch.zeros(5, 3))
    rows = torch.tensor([0, 4, wrong, 2])
    with pytest.raises(IndexError, match=f"row {wrong} at place 2 .* there are 5"):
        native_low_row_update(native(), optimizer, *table, state, rows, torch.ones(4, 3), 0.1, (1, 1))
    assert all(torch.equal(one, two) for one, two in zip(bits(table), bits(before), strict=True))
    assert not any(held.any() for held in state.values())


@pytest.mark.parametrize("dtype", FORMATS)
def test_threads_and_strides_of_the_gradient_change_no_bit(dtype: torch.dtype) -> None:
    table = stored(torch.randn(101, 24), dtype)
    other = copied(table)
    optimizer = RowOptimizer("rowwise_adagrad")
    native()
    state, other_state = (optimizer.state(torch.zeros(101, 24)) for _ in range(2))
    rows = torch.randperm(101)
    gradient = torch.randn(24, 101).T
    used = torch.get_num_threads()
    try:
        for threads, (held, of) in ((1, (table, state)), (4, (other, other_state))):
            torch.set_num_threads(threads)
            values = low_row_values(*held, rows)
            low_row_update(optimizer, *held, of, rows, values, gradient, 0.1, (5, 6))
    finally:
        torch.set_num_threads(used)
    assert all(torch.equal(one, two) for one, two in zip(bits(table), bits(other), strict=True))
    assert not torch.equal(low_row_values(*table, rows), torch.zeros(101, 24))


@pytest.mark.parametrize("dtype", FORMATS)
def test_rows_of_32_bits_and_wide_state_give_what_float32_gives(dtype: torch.dtype) -> None:
    optimizer, rows = RowOptimizer("adam"), torch.tensor([3, 0])
    generator = torch.Generator().manual_seed(0)
    ours = stored(torch.randn(5, 6, generator=generator), dtype)
    others, gradient = [copied(ours), copied(ours)], torch.randn(2, 6, generator=generator)
    state = optimizer.state(torch.zeros(5, 6))
    wide = {key: held.long() if key == "touches" else held.double() for key, held in state.items()}
    copies = [{key: held.clone() for key, held in wide.items()} for _ in range(2)]
    values = low_row_values(*ours, rows)
    assert torch.equal(low_row_values(*ours, rows.int()), values)
    low_row_update(optimizer, *ours, state, rows, values, gradient, 0.1, (1, 2))
    held = (rows.int(), low_row_values(*others[0], rows), gradient, 0.1, (1, 2))
    low_row_update(optimizer, *others[0], copies[0], *held)
    repeated_low_row_update(optimizer, *others[1], copies[1], rows.int(), gradient, 0.1, (1, 2))
    for other, copy in zip(others, copies, strict=True):
        # moments of 64 bits may cast a value the other way: one step of 8 bits, or of 16 at values below 4
        found, expected = (low_row_values(*table, torch.arange(5)) for table in (other, ours))
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
        assert torch.equal(copy["touches"], state["touches"].long())
        torch.testing.assert_close(copy["moment"], state["moment"].double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_does_not_fit_is_refused_and_changes_nothing(dtype: torch.dtype) -> None:
    optimizer, rows, gradient = RowOptimizer("adagrad"), torch.tensor([3, 0]), torch.ones(2, 6)
    weight, steps = stored(torch.ones(5, 6), dtype)
    before, state = weight.clone(), optimizer.state(torch.zeros(5, 6))
    values = low_row_values(weight, steps, rows)
    other_steps = [steps[:2], steps.float(), None] if steps is not None else [torch.ones(5).half()]
    wrong = [
        (steps, {}, rows, values, gradient),
        (steps, {"square_sum": state["square_sum"][:3]}, rows, values, gradient),
        (steps, state, rows, values, gradient[:1]),
        (steps, state, rows.view(1, 2), values, gradient),
        *((other, state, rows, values, gradient) for other in other_steps),
    ]
    for given_steps, held, where, read, g in wrong:
        with pytest.raises(ValueError, match=r"expected|needs the state|steps"):
            low_row_update(optimizer, weight, given_steps, held, where, read, g, 0.1, None)
        with pytest.raises(ValueError, match=r"expected|needs the state|steps"):
            repeated_low_row_update(optimizer, weight, given_steps, held, where, g, 0.1, None)
    with pytest.raises(ValueError, match="values has shape"):
        low_row_update(optimizer, weight, steps, state, rows, values[:1], gradient, 0.1, None)
    with pytest.raises(ValueError, match="rows has shape"):
        low_row_values(weight, steps, rows.view(1, 2))
    if steps is not None:
        with pytest.raises(ValueError, match=r"steps has shape \(2,\), expected \(5,\)"):
            low_row_values(weight, steps[:2], rows)
    assert torch.equal(weight, before) and not state["square_sum"].any()
