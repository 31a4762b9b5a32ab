"""Fake quantization in Triton against torch, values and gradients: in Triton's interpreter, or on a GPU."""

import os

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoembed_kernels.lsq import (
    Grid,
    grid_table,
    torch_fake_quantized,
    torch_fake_quantized_gradients,
    torch_mixed_quantized,
    torch_mixed_quantized_gradients,
)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.lsq import (  # noqa: E402
    triton_fake_quantized,
    triton_fake_quantized_gradients,
    triton_mixed_quantized,
    triton_mixed_quantized_gradients,
)

# the interpreter takes tens of milliseconds for each example, and shrinking would try hundreds
few = settings(deadline=None, max_examples=15, phases=[Phase.explicit, Phase.generate])
GRIDS = st.lists(st.builds(Grid, st.integers(1, 8), st.booleans()), min_size=1, max_size=6)
SHAPES = {"count": st.integers(0, 70), "dim": st.sampled_from([1, 3, 8, 13, 16, 33])}


def drawn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def settings_of(grids: list[Grid], dim: int, offset: bool, generator: torch.Generator) -> list[Tensor | None]:
    """Steps of both signs, so that values lie inside and outside of every grid; offset, grids, scales."""
    signs = torch.randint(0, 2, (len(grids),), generator=generator) * 2 - 1
    steps = torch.tensor([2.0 / 2**grid.bits for grid in grids]) * signs
    zero = drawn(generator, dim) * 0.1 if offset else None
    return [None if x is None else x.to(DEVICE) for x in (steps, zero, grid_table(grids))]


def close(found: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        # float32 sums of at most 70 rows of 33 columns, in another order; products may be fused with sums
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-5)


def close_gradients(
    found: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...], gradient: Tensor
) -> None:
    """Gradients of values, steps, offset and, maybe, mixture; `gradient` is that of the output."""
    (d_values, d_steps, *others), (expected_values, expected_steps, *expected_others) = found, expected
    close((d_values, *others), (expected_values, *expected_others))
    # A step's gradient sums terms of up to 128 |gradient|, which may cancel: what two orders of a float32 sum
    # may differ by grows with the sizes of the terms, not with the sum.
    size = 128 * gradient.abs().sum().item()
    assert d_steps is not None and expected_steps is not None
    torch.testing.assert_close(d_steps, expected_steps, rtol=2e-5, atol=2e-5 + size * 2**-24)


@given(grids=GRIDS, offset=st.booleans(), own=st.booleans(), seed=st.integers(0, 2**32), **SHAPES)
@example([Grid(7, True), Grid(6, False)], False, True, 71840, 55, 8)  # large terms cancel
@few
def test_rows_on_their_grids_equal_those_of_torch(
    grids: list[Grid], offset: bool, own: bool, seed: int, count: int, dim: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    grids = grids if own else grids[:1]
    steps, zero, table = settings_of(grids, dim, offset, generator)
    which = torch.randint(0, len(grids), (count,), generator=generator).to(DEVICE) if own else None
    values, gradient = (drawn(generator, count, dim).to(DEVICE) for _ in range(2))
    scales = torch.rand(len(grids), generator=generator).to(DEVICE)
    assert steps is not None and table is not None
    held = (values, steps, zero, table, which)
    close((triton_fake_quantized(*held),), (torch_fake_quantized(*held),))
    backward = (gradient, values, steps, zero, table, scales, which)
    found, expected = (
        f(*backward) for f in (triton_fake_quantized_gradients, torch_fake_quantized_gradients)
    )
    close_gradients(found, expected, gradient)


@given(grids=GRIDS, offset=st.booleans(), seed=st.integers(0, 2**32), **SHAPES)
@few
def test_mixtures_of_widths_equal_those_of_torch(
    grids: list[Grid], offset: bool, seed: int, count: int, dim: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps, zero, table = settings_of(grids, dim, offset, generator)
    values, gradient = (drawn(generator, count, dim).to(DEVICE) for _ in range(2))
    scales = torch.rand(len(grids), generator=generator).to(DEVICE)
    # some rows give some widths no weight at all
    mixture = torch.rand(count, len(grids), generator=generator).mul(3).sub(1).clamp(0, 1).to(DEVICE)
    assert steps is not None and table is not None
    held = (values, steps, zero, table, mixture)
    close((triton_mixed_quantized(*held),), (torch_mixed_quantized(*held),))
    backward = (gradient, values, steps, zero, table, scales, mixture)
    found, expected = (
        f(*backward) for f in (triton_mixed_quantized_gradients, torch_mixed_quantized_gradients)
    )
    close_gradients(found, expected, gradient)


@pytest.mark.parametrize("grid", [Grid(1), Grid(1, True), Grid(3), Grid(8, True)], ids=str)
def test_halves_between_two_levels_go_to_the_even_one_as_in_torch(grid: Grid) -> None:
    values = (torch.arange(-40, 40).float() / 4).view(-1, 1).to(DEVICE)  # quarters of a step: many are halves
    held = (torch.ones(1, device=DEVICE), None, grid_table([grid]).to(DEVICE), None)
    assert torch.equal(triton_fake_quantized(values, *held), torch_fake_quantized(values, *held))


def test_values_that_are_not_contiguous_and_not_numbers_are_kept_apart() -> None:
    wide = drawn(torch.Generator().manual_seed(0), 6, 10).to(DEVICE)
    wide[2, 4] = float("nan")
    values = wide[:, ::2]
    held = (torch.tensor([0.3], device=DEVICE), None, grid_table([Grid(4)]).to(DEVICE), None)
    found, expected = triton_fake_quantized(values, *held), torch_fake_quantized(values, *held)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found.isnan().nonzero().tolist() == [[2, 2]]
