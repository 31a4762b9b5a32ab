"""Errors of many steps at once, in C++ and in torch, against one step at a time in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native
from torch import Tensor

from autoembed_kernels.lsq import Grid
from autoembed_kernels.step_errors import reference, step_errors, torch_step_errors

SIZES = st.lists(st.sampled_from([0, 1, 2, 7, 33]), min_size=0, max_size=6)


def drawn(sizes: list[int], dim: int, points: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    values, weights = (torch.randn(count, dim, generator=generator) for _ in range(2))
    steps = 0.01 + torch.rand(len(sizes), points, generator=generator)
    return values, weights.square(), torch.tensor(sizes, dtype=torch.int64), steps


@given(
    SIZES,
    st.sampled_from([1, 2, 3, 8, 10, 16, 17]),
    st.integers(1, 5),
    st.builds(Grid, st.integers(1, 8), st.booleans()),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=80)
def test_errors_are_those_of_one_step_at_a_time(
    sizes: list[int], dim: int, points: int, grid: Grid, seed: int
) -> None:
    native()
    case = drawn(sizes, dim, points, seed)
    expected = reference(*case, grid)
    for found in (step_errors(*case, grid), torch_step_errors(*case, grid)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_value_halfway_loses_the_same_either_way() -> None:
    values = torch.tensor([[0.5], [1.5], [-0.5]])
    found = step_errors(values, torch.ones(3, 1), torch.tensor([3]), torch.tensor([[1.0]]), Grid(4))
    assert found.item() == pytest.approx(0.75)


def test_rows_that_are_no_block_of_their_own_are_read_right() -> None:
    values, weights, sizes, steps = drawn([5, 9], 8, 3, 0)
    wide = torch.cat([values, values], dim=1)
    found = step_errors(wide[:, :8], weights, sizes, steps, Grid(3))
    assert torch.equal(found, step_errors(values, weights, sizes, steps, Grid(3)))


def test_shapes_that_do_not_fit_are_refused() -> None:
    values, weights, sizes, steps = drawn([5, 9], 8, 3, 0)
    with pytest.raises(ValueError, match="do not fit"):
        step_errors(values[1:], weights[1:], sizes, steps, Grid(3))
    with pytest.raises(ValueError, match="do not fit"):
        step_errors(values, weights, sizes, steps[:1], Grid(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("sizes_dtype", [torch.int64, torch.int32])
def test_weights_and_steps_in_another_dtype_are_cast(dtype: torch.dtype, sizes_dtype: torch.dtype) -> None:
    values, weights, sizes, steps = drawn([3, 0, 7], 4, 2, 0)
    weights, steps = weights.half(), steps.half()
    expected = step_errors(values, weights.float(), sizes, steps.float(), Grid(4))
    found = step_errors(values, weights.to(dtype), sizes.to(sizes_dtype), steps.to(dtype), Grid(4))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("sizes", [[100_000, -99_997], [4, -1], [-1, 4]])
def test_groups_of_less_than_no_rows_are_refused(sizes: list[int]) -> None:
    values, steps = torch.ones(3, 4), torch.ones(2, 2)
    with pytest.raises(ValueError, match="expected 0 or more"):
        step_errors(values, values, torch.tensor(sizes), steps, Grid(4))


def test_other_dimensions_are_refused() -> None:
    values, steps = torch.ones(3, 4), torch.ones(2, 2)
    for v, s, sizes in [
        (values[0], steps, [2, 2]),
        (values, steps[0], [1, 2]),
        (values, steps, [[1, 2]]),
        (values, steps, [1.0, 2.0]),
    ]:
        with pytest.raises(ValueError, match="shape"):
            step_errors(v, v, torch.tensor(sizes), s, Grid(4))
