"""Fake quantization in C++ against torch, values and gradients, and any number of threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native
from torch import Tensor

from autoembed_kernels.lsq import (
    BLOCK,
    Grid,
    fake_quantize,
    grid_table,
    native_quantized,
    native_quantized_gradients,
    torch_fake_quantized,
    torch_fake_quantized_gradients,
    torch_mixed_quantized,
    torch_mixed_quantized_gradients,
)

GRIDS = st.lists(st.builds(Grid, st.integers(1, 8), st.booleans()), min_size=1, max_size=6)
COUNTS = st.sampled_from([0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 13])
DIMS = st.sampled_from([1, 2, 3, 4, 7, 8, 13, 16, 17, 64])
Case = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]


def drawn(grids: list[Grid], count: int, dim: int, offset: bool, seed: int) -> Case:
    """values, steps of both signs, offset, grids, scales and the gradient of the output."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (len(grids),), generator=generator) * 2 - 1
    steps = torch.tensor([2.0 / 2**grid.bits for grid in grids]) * signs
    values, gradient = (torch.randn(count, dim, generator=generator) for _ in range(2))
    zero = 0.1 * torch.randn(dim, generator=generator) if offset else None
    return values, steps, zero, grid_table(grids), torch.rand(len(grids), generator=generator), gradient


def close(found: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            # sums of up to 525 rows of 64 columns in float32, in another order
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@given(GRIDS, COUNTS, DIMS, st.booleans(), st.booleans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_rows_on_their_grids_are_those_of_torch(
    grids: list[Grid], count: int, dim: int, offset: bool, own: bool, seed: int
) -> None:
    grids = grids if own else grids[:1]
    values, steps, zero, table, scales, gradient = drawn(grids, count, dim, offset, seed)
    which = (
        torch.randint(len(grids), (count,), generator=torch.Generator().manual_seed(seed)) if own else None
    )
    out = native_quantized(native(), values, steps, zero, table, which, None)
    assert torch.equal(out, torch_fake_quantized(values, steps, zero, table, which)), "the same bits"
    held = (gradient, values, steps, zero, table, scales)
    d_values, *others = native_quantized_gradients(native(), *held, which, None)[:3]
    expected, *other_expected = torch_fake_quantized_gradients(*held, which)
    assert torch.equal(d_values, expected)
    close(tuple(others), tuple(other_expected))


@given(GRIDS, COUNTS, DIMS, st.booleans(), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_mixtures_of_grids_are_those_of_torch(
    grids: list[Grid], count: int, dim: int, offset: bool, seed: int
) -> None:
    values, steps, zero, table, scales, gradient = drawn(grids, count, dim, offset, seed)
    mixture = torch.rand(count, len(grids), generator=torch.Generator().manual_seed(seed))
    mixture = torch.where(mixture < 0.4, 0.0, mixture)
    out = native_quantized(native(), values, steps, zero, table, None, mixture)
    assert torch.equal(out, torch_mixed_quantized(values, steps, zero, table, mixture)), "the same bits"
    held = (gradient, values, steps, zero, table, scales)
    found = native_quantized_gradients(native(), *held, None, mixture)
    expected = torch_mixed_quantized_gradients(*held, mixture)
    assert torch.equal(found[0], expected[0])
    close(found[1:], expected[1:])


def test_any_number_of_threads_gives_the_same_bits() -> None:
    grids = [Grid(2), Grid(4, True), Grid(8)]
    values, steps, zero, table, scales, gradient = drawn(grids, 3 * BLOCK + 5, 13, True, 0)
    mixture = torch.rand(len(values), 3, generator=torch.Generator().manual_seed(1))
    before, made = torch.get_num_threads(), []
    try:
        for workers in (1, 2, 5):
            torch.set_num_threads(workers)
            out = native_quantized(native(), values, steps, zero, table, None, mixture)
            held = (gradient, values, steps, zero, table, scales)
            made.append((out, *native_quantized_gradients(native(), *held, None, mixture)))
    finally:
        torch.set_num_threads(before)
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            assert one is not None and two is not None and torch.equal(one, two)


def test_what_is_no_number_stays_so_and_what_is_huge_is_clipped() -> None:
    values = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1e30]])
    out = fake_quantize(values, torch.tensor([0.5]), grid_table([Grid(4)]), torch.ones(1))
    assert out[0, 0].isnan()
    assert out[0, 1:].tolist() == [3.5, -4.0, 3.5]


def test_a_grid_that_there_is_not_raises() -> None:
    native()
    with pytest.raises(IndexError, match=r"grid 2 at place 1 .* there are 2"):
        which = torch.tensor([0, 2])
        fake_quantize(torch.ones(2, 3), torch.ones(2), grid_table([Grid(2)] * 2), torch.ones(2), which)


def test_slices_and_transposes_are_read_as_they_are() -> None:
    native()
    values = torch.randn(12, 9, generator=torch.Generator().manual_seed(0)).T
    steps, table = torch.tensor([0.3]), grid_table([Grid(3)])
    found = fake_quantize(values, steps, table, torch.ones(1))
    assert torch.equal(found, torch_fake_quantized(values, steps, None, table, None))
