"""Updates from the gradients of repeated look-ups against the reference and against separate operations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native

from autoembed_kernels.dedupe import native_sum_repeats, torch_dedupe
from autoembed_kernels.low_row_update import (
    FORMATS,
    low_row_values,
    native_low_row_update,
    write_low_rows,
)
from autoembed_kernels.repeated_update import (
    reference,
    repeated_low_row_update,
    repeated_row_update,
)
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, native_row_update

DIMS = st.sampled_from([1, 3, 7, 8, 13, 16, 17, 32, 64, 65])
CASES = st.integers(1, 40).flatmap(
    lambda height: st.tuples(st.just(height), st.lists(st.integers(0, height - 1), max_size=90))
)
Table = tuple[torch.Tensor, torch.Tensor | None]


def low_table(height: int, dim: int, dtype: torch.dtype, generator: torch.Generator) -> Table:
    weight = torch.zeros(height, dim, dtype=dtype)
    steps = torch.zeros(height, dtype=torch.float16) if dtype == torch.int8 else None
    write_low_rows(weight, steps, torch.arange(height), torch.randn(height, dim, generator=generator), None)
    return weight, steps


def copied(table: Table) -> Table:
    weight, steps = table
    return weight.clone(), None if steps is None else steps.clone()


def same_bits(one: Table, other: Table) -> bool:
    return torch.equal(one[0], other[0]) and (one[1] is None or torch.equal(one[1], other[1]))  # type: ignore[arg-type]


@given(st.sampled_from(OPTIMIZERS), DIMS, CASES, st.sampled_from([0.0, 0.3]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_updates_are_those_of_the_float64_reference_and_the_bits_of_separate_passes(
    name: str, dim: int, case: tuple[int, list[int]], l2: float, seed: int
) -> None:
    height, held = case
    rows = torch.tensor(held, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    optimizer = RowOptimizer(name, betas=(0.8, 0.95), l2=l2)
    weight = torch.randn(height, dim, generator=generator)
    apart, exact = weight.clone(), weight.double()
    states = [optimizer.state(each) for each in (weight, apart, exact)]
    for _ in range(2):
        gradient = torch.randn(len(rows), dim, generator=generator)
        native_row_update(native(), optimizer, weight, states[0], rows, gradient, 0.05, repeated=True)
        unique, repeats = torch_dedupe(rows, height)
        summed = torch.empty(len(unique), dim)
        native_sum_repeats(native(), gradient, repeats.order, repeats.starts, summed)
        native_row_update(native(), optimizer, apart, states[1], unique, summed, 0.05)
        reference(optimizer, exact, states[2], rows, gradient.double(), 0.05)
    assert torch.equal(weight, apart)
    for key in optimizer.state_names:
        assert torch.equal(states[0][key], states[1][key])
    # float32 against float64 over two steps of size 0.05, from sums of up to 90 numbers below 5; the steps of
    # adam and adagrad do not shrink with a sum near zero, whose digits are lost
    torch.testing.assert_close(weight.double(), exact, rtol=1e-5, atol=1e-4)


@given(
    *(st.sampled_from(OPTIMIZERS), st.sampled_from(FORMATS), DIMS, CASES),
    *(
        st.one_of(st.none(), st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))),
        st.integers(0, 2**32),
    ),
)
@settings(deadline=None, max_examples=60)
def test_low_rows_have_the_bits_of_separate_passes(
    name: str,
    dtype: torch.dtype,
    dim: int,
    case: tuple[int, list[int]],
    chance: tuple[int, int] | None,
    seed: int,
) -> None:
    height, held = case
    rows = torch.tensor(held, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    optimizer = RowOptimizer(name)
    table = low_table(height, dim, dtype, generator)
    other = copied(table)
    state, other_state = (optimizer.state(torch.zeros(height, dim)) for _ in range(2))
    gradient = torch.randn(len(rows), dim, generator=generator)
    native_low_row_update(native(), optimizer, *table, state, rows, gradient, 0.05, chance, repeated=True)
    unique, repeats = torch_dedupe(rows, height)
    summed = torch.empty(len(unique), dim)
    native_sum_repeats(native(), gradient, repeats.order, repeats.starts, summed)
    native_low_row_update(native(), optimizer, *other, other_state, unique, summed, 0.05, chance)
    assert same_bits(table, other)
    for key in optimizer.state_names:
        assert torch.equal(state[key], other_state[key])


@pytest.mark.parametrize("dtype", [torch.float32, *FORMATS])
def test_the_torch_path_makes_the_same_updates(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoembed_kernels.native import loader

    native()
    generator = torch.Generator().manual_seed(0)
    rows = (torch.rand(200, generator=generator) ** 3 * 50).long()
    gradient = torch.randn(200, 12, generator=generator)
    optimizer = RowOptimizer("rowwise_adagrad")
    made = []
    for switched_off in (False, True):
        if switched_off:
            monkeypatch.setattr(loader._Loaded, "library", None)
        drawn = torch.Generator().manual_seed(1)
        if dtype == torch.float32:
            table: Table = torch.randn(50, 12, generator=drawn), None
        else:
            table = low_table(50, 12, dtype, drawn)
        state = optimizer.state(torch.zeros(50, 12))
        if dtype == torch.float32:
            repeated_row_update(optimizer, table[0], state, rows, gradient, 0.05)
            made.append(table[0])
        else:
            repeated_low_row_update(optimizer, *table, state, rows, gradient, 0.05, None)
            made.append(low_row_values(*table, torch.arange(50)))
    # casts of the nearest may differ by a spacing, where torch adds in another order
    spacing = {torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6, torch.int8: 0.05}.get(dtype, 1e-5)
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=spacing)


@pytest.mark.parametrize("count", [9, 60_000])
@pytest.mark.parametrize("kind", ["skewed", "equal", "distinct"])
def test_any_number_of_threads_gives_the_same_bits(count: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    height = 5_000_000 if kind == "skewed" else 70_000
    rows = {
        "skewed": (torch.rand(count, generator=generator) ** 6 * height).long(),
        "equal": torch.full((count,), 1234),
        "distinct": torch.randperm(height, generator=generator)[:count],
    }[kind]
    gradient = torch.randn(count, 4, generator=generator)
    optimizer = RowOptimizer("rowwise_adagrad")
    before, made = torch.get_num_threads(), []
    try:
        for workers in (1, 2, 3, 5):
            torch.set_num_threads(workers)
            weight, steps = torch.zeros(height, 4, dtype=torch.int8), torch.ones(height, dtype=torch.float16)
            state = optimizer.state(torch.zeros(()).expand(height, 4))
            native_low_row_update(
                native(), optimizer, weight, steps, state, rows, gradient, 0.1, (3, 1), repeated=True
            )
            wide = torch.zeros(height, 4)
            sums = optimizer.state(wide)
            native_row_update(native(), optimizer, wide, sums, rows, gradient, 0.1, repeated=True)
            made.append((weight[rows], steps[rows], state["square_sum"][rows], wide[rows]))
    finally:
        torch.set_num_threads(before)
    for other in made[1:]:
        assert all(torch.equal(one, two) for one, two in zip(made[0], other, strict=True))
    touched = torch.unique(rows)
    summed = torch.zeros(height, 4, dtype=torch.float64).index_add(0, rows, gradient.double())[touched]
    expected = -0.1 * summed / summed.square().mean(1, keepdim=True).sqrt()
    # one step of row-wise Adagrad from zero, of sums of up to 60,000 float32 numbers
    torch.testing.assert_close(wide[touched].double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wrong", [-1, 5, 2**40, -(2**63)])
def test_a_row_out_of_range_raises_and_changes_nothing(wrong: int) -> None:
    native()
    rows = torch.tensor([0, 4, wrong, 2])
    optimizer = RowOptimizer("adam")
    weight = torch.ones(5, 3)
    state = optimizer.state(weight)
    with pytest.raises(IndexError, match=f"row {wrong} at place 2 .* there are 5"):
        repeated_row_update(optimizer, weight, state, rows, torch.ones(4, 3), 0.1)
    low = low_table(5, 3, torch.int8, torch.Generator().manual_seed(0))
    before = copied(low)
    with pytest.raises(IndexError, match="place 2"):
        repeated_low_row_update(optimizer, *low, state, rows, torch.ones(4, 3), 0.1, (1, 1))
    assert torch.equal(weight, torch.ones(5, 3)) and same_bits(low, before)
    assert not any(held.any() for held in state.values())
