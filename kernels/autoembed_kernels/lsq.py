"""Fake quantization with a learned step (LSQ+), of one width per row or of several widths at once.

Esser et al., "Learned step size quantization", arXiv:1902.08153; Bhalgat et al., "LSQ+", arXiv:2004.09576.
With step a = |step| + 1e-10, offset o per column, and the grid's lowest and highest code l, h and shift r:

    u = (w - o) / a - r,     q = clip(round(u), l, h),     output = (q + r) a + o

    mid-tread, b bits   l = -2^(b-1), h = 2^(b-1) - 1, r = 0:    zero is a level; 1 bit has {-a, 0}
    mid-rise,  b bits   the same l and h, r = 1/2:               levels +-a/2, +-3a/2, ..; 1 bit has +-a/2

Gradients, for g of the output (round is passed straight through):

    d w     g inside the clip range, 0 outside
    d step  sign(step) s sum of g * (round(u) - u inside, q + r outside)
    d o     s times the sum over rows of g outside

s is the scale of the step's gradient. Inside means l <= u <= h on the mid-tread grid; on the mid-rise grid
l - 1/2 <= u <= h + 1/2, the cells of all levels, since between its two levels 1 bit would hold no weight.
"""

from collections.abc import Sequence
from ctypes import CDLL
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices, check_dims, check_shape
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, checked, native_for, threads
from autoembed_kernels.operators import operators

GUARD = 1e-10
BLOCK = 256  # rows; native/lsq.cpp sums the offset's gradient block by block


@dataclass(frozen=True)
class Grid:
    """The levels of codes of `bits` bits."""

    bits: int
    mid_rise: bool = False

    @property
    def lowest(self) -> int:
        return -(1 << (self.bits - 1))

    @property
    def highest(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def shift(self) -> float:
        return 0.5 if self.mid_rise else 0.0


def grid_table(grids: Sequence[Grid]) -> Tensor:
    """(S, 3) float32: lowest code, highest code and shift of every grid."""
    return torch.tensor([(g.lowest, g.highest, g.shift) for g in grids], dtype=torch.float32).view(-1, 3)


def fake_quantize(
    values: Tensor,
    steps: Tensor,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """values (N, D) -> (N, D) on the grid of each row.

    steps (S,), grids (S, 3) of `grid_table`, gradient_scales (S,); which (N,) int64 is the row's grid and
    step, None where there is one; offset (D,), None for zero. Raises IndexError on a CPU with the C++ library
    where a row's grid does not exist, and ValueError where shapes do not fit.
    """
    if torch.compiler.is_compiling():
        traced: Tensor = operators().fake_quantize(values, steps, offset, grids, gradient_scales, which)
        return traced
    result: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]
        values, steps, offset, grids, gradient_scales, which
    )
    return result


def mix_quantized(
    values: Tensor,
    steps: Tensor,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
    offset: Tensor | None = None,
) -> Tensor:
    """values (N, D), mixture (N, P) -> sum over p of mixture[:, p] * (values on grid p), (N, D).

    steps (P,), grids (P, 3), gradient_scales (P,), offset (D,) or None. A width is computed for the rows
    that give it weight and no copy is kept; its gradient is exact where the weight is exactly zero too,
    except for that of the weight itself, which a softmax multiplies by zero anyway. Raises ValueError where
    shapes do not fit.
    """
    if torch.compiler.is_compiling():
        traced: Tensor = operators().mix_quantized(values, steps, offset, grids, gradient_scales, mixture)
        return traced
    result: Tensor = _MixQuantized.apply(  # type: ignore[no-untyped-call]
        values, steps, offset, grids, gradient_scales, mixture
    )
    return result


def reference(values: Tensor, step: float, grid: Grid, offset: Tensor) -> Tensor:
    """One step for all values (N, D), in float64; offset (D,)."""
    wide, zero = values.double(), offset.double()
    a = abs(step) + GUARD
    u = (wide - zero) / a - grid.shift
    q = u.round().clamp(grid.lowest, grid.highest)
    return (q + grid.shift) * a + zero


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        steps: Tensor,
        offset: Tensor | None,
        grids: Tensor,
        gradient_scales: Tensor,
        which: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(values, steps, offset, grids, gradient_scales, which)
        return fake_quantized(values, steps, offset, grids, which)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return *fake_quantized_gradients(gradient, *ctx.saved_tensors), None, None, None


def fake_quantized(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, which: Tensor | None
) -> Tensor:
    """`fake_quantize` without a gradient."""
    which = _checked_which(values, steps, offset, grids, which)
    native = _native(which, values, steps, offset, grids)
    if native is not None:
        return native_quantized(native, values, steps, offset, grids, which, None)
    if _triton_serves(values, steps, offset, grids, which):
        from autoembed_kernels.gpu.lsq import triton_fake_quantized

        return triton_fake_quantized(values, steps, offset, grids, which)
    return torch_fake_quantized(values, steps, offset, grids, which)


def torch_fake_quantized(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, which: Tensor | None
) -> Tensor:
    """`fake_quantized` in torch, on any device."""
    step, grid = _by_row(steps, grids, which)
    codes = _units(values, step, grid, offset).round_().clamp_(grid[:, :1], grid[:, 1:2])
    return _decoded(codes, step, grid, offset)


def fake_quantized_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """gradient (N, D) of the output -> those of values, steps and offset."""
    which = _checked_which(values, steps, offset, grids, which)
    _check_gradient(gradient, values, steps, gradient_scales)
    native = _native(which, values, steps, offset, grids, gradient, gradient_scales)
    if native is not None:
        held = (gradient, values, steps, offset, grids, gradient_scales)
        return native_quantized_gradients(native, *held, which, None)[:3]
    if _triton_serves(values, steps, offset, grids, which):
        from autoembed_kernels.gpu.lsq import triton_fake_quantized_gradients

        return triton_fake_quantized_gradients(gradient, values, steps, offset, grids, gradient_scales, which)
    return torch_fake_quantized_gradients(gradient, values, steps, offset, grids, gradient_scales, which)


def torch_fake_quantized_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`fake_quantized_gradients` in torch, on any device."""
    step, grid = _by_row(steps, grids, which)
    units = _units(values, step, grid, offset)
    codes = units.round().clamp_(grid[:, :1], grid[:, 1:2])
    d_values, d_row, clipped = _gradients(units, codes, grid, gradient)
    scale = gradient_scales if which is None else gradient_scales[which]  # (N,) or (1,)
    d_steps = torch.zeros_like(steps)
    if which is None:
        d_steps += (d_row * scale).sum()
    else:
        d_steps.index_add_(0, which, d_row * scale)
    d_offset = None if offset is None else (clipped * scale.unsqueeze(1)).sum(0)
    return d_values, d_steps * steps.sign(), d_offset


class _MixQuantized(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        steps: Tensor,
        offset: Tensor | None,
        grids: Tensor,
        gradient_scales: Tensor,
        mixture: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(values, steps, offset, grids, gradient_scales, mixture)
        return mixed_quantized(values, steps, offset, grids, mixture)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        d_values, d_steps, d_offset, d_mixture = mixed_quantized_gradients(gradient, *ctx.saved_tensors)
        return d_values, d_steps, d_offset, None, None, d_mixture


def mixed_quantized(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, mixture: Tensor
) -> Tensor:
    """`mix_quantized` without a gradient."""
    _check_mixture(values, steps, offset, grids, mixture)
    native = _native(None, values, steps, offset, grids, mixture)
    if native is not None:
        return native_quantized(native, values, steps, offset, grids, None, mixture)
    if _triton_serves(values, steps, offset, grids, mixture):
        from autoembed_kernels.gpu.lsq import triton_mixed_quantized

        return triton_mixed_quantized(values, steps, offset, grids, mixture)
    return torch_mixed_quantized(values, steps, offset, grids, mixture)


def torch_mixed_quantized(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, mixture: Tensor
) -> Tensor:
    """`mixed_quantized` in torch, on any device."""
    mixed = torch.zeros_like(values)
    for p, grid in enumerate(torch.split(grids, 1)):
        rows, part, weight = _weighed(mixture, p, values)
        step = steps[p : p + 1].abs().unsqueeze(1) + GUARD
        codes = _units(part, step, grid, offset).round_().clamp_(grid[:, :1], grid[:, 1:2])
        decoded = _decoded(codes, step, grid, offset).mul_(weight)
        mixed = mixed.add_(decoded) if rows is None else mixed.index_add_(0, rows, decoded)
    return mixed


def mixed_quantized_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """gradient (N, D) of the output -> those of values, steps, offset and mixture."""
    _check_mixture(values, steps, offset, grids, mixture)
    _check_gradient(gradient, values, steps, gradient_scales)
    native = _native(None, values, steps, offset, grids, mixture, gradient, gradient_scales)
    if native is not None:
        held = (gradient, values, steps, offset, grids, gradient_scales)
        d_values, d_steps, d_offset, d_mixture = native_quantized_gradients(native, *held, None, mixture)
        assert d_mixture is not None
        return d_values, d_steps, d_offset, d_mixture
    if _triton_serves(values, steps, offset, grids, mixture):
        from autoembed_kernels.gpu.lsq import triton_mixed_quantized_gradients

        return triton_mixed_quantized_gradients(
            gradient, values, steps, offset, grids, gradient_scales, mixture
        )
    return torch_mixed_quantized_gradients(gradient, values, steps, offset, grids, gradient_scales, mixture)


def torch_mixed_quantized_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """`mixed_quantized_gradients` in torch, on any device."""
    d_values, d_steps, d_mixture = map(torch.zeros_like, (values, steps, mixture))
    d_offset = None if offset is None else torch.zeros_like(offset)
    for p, grid in enumerate(torch.split(grids, 1)):
        rows, part, weight = _weighed(mixture, p, values)
        g = gradient if rows is None else gradient.index_select(0, rows)
        step = steps[p : p + 1].abs().unsqueeze(1) + GUARD
        units = _units(part, step, grid, offset)
        codes = units.round().clamp_(grid[:, :1], grid[:, 1:2])
        d_weight = (_decoded(codes, step, grid, offset) * g).sum(1)
        d_part, d_row, clipped = _gradients(units, codes, grid, g * weight)
        if rows is None:
            d_mixture[:, p] = d_weight
            d_values += d_part
        else:
            d_mixture[rows, p] = d_weight
            d_values.index_add_(0, rows, d_part)
        d_steps[p] = d_row.sum() * gradient_scales[p]
        if d_offset is not None:
            d_offset += clipped.sum(0) * gradient_scales[p]
    return d_values, d_steps * steps.sign(), d_offset, d_mixture


def native_quantized(
    library: CDLL,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    which: Tensor | None,
    mixture: Tensor | None,
) -> Tensor:
    """`fake_quantized` or, with a mixture, `mixed_quantized`, native/lsq.cpp."""
    values, which, mixture = values.contiguous(), _contiguous(which), _contiguous(mixture)
    zero = steps.new_zeros(values.shape[1]) if offset is None else offset.contiguous()
    lengths, out = steps.abs() + GUARD, torch.empty_like(values)
    bad = library.autoembed_lsq(
        *map(address, (values, lengths, zero, grids, which, mixture)),
        *(len(values), len(steps), values.shape[1], address(out), threads()),
    )
    if which is not None:
        checked(bad, which, len(steps), "grid")
    return out


def native_quantized_gradients(
    library: CDLL,
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
    mixture: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of values, steps, offset and mixture, native/lsq.cpp; sums of rows are taken here."""
    gradient, values, gradient_scales = (x.contiguous() for x in (gradient, values, gradient_scales))
    which, mixture = _contiguous(which), _contiguous(mixture)
    zero = steps.new_zeros(values.shape[1]) if offset is None else offset.contiguous()
    lengths, d_values = steps.abs() + GUARD, torch.zeros_like(values)
    d_rows = values.new_zeros(len(values)) if mixture is None else torch.zeros_like(mixture)
    d_mixture = None if mixture is None else torch.zeros_like(mixture)
    d_blocks = None if offset is None else values.new_zeros(-(-len(values) // BLOCK), values.shape[1])
    bad = library.autoembed_lsq_gradients(
        *map(address, (gradient, values, lengths, zero, grids, gradient_scales, which, mixture)),
        *(len(values), len(steps), values.shape[1]),
        *map(address, (d_values, d_rows, d_mixture, d_blocks)),
        threads(),
    )
    if which is not None:
        checked(bad, which, len(steps), "grid")
        d_steps = torch.zeros_like(steps).index_add_(0, which, d_rows) * gradient_scales
    elif mixture is None:
        d_steps = torch.zeros_like(steps) + d_rows.sum() * gradient_scales
    else:
        d_steps = d_rows.sum(0) * gradient_scales
    return d_values, d_steps * steps.sign(), None if d_blocks is None else d_blocks.sum(0), d_mixture


def _checked_which(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, which: Tensor | None
) -> Tensor | None:
    """`which` as int64. Raises ValueError where shapes do not fit."""
    _check_grids(values, steps, offset, grids)
    if which is None:
        check_shape("steps", steps, (1,), "one for all rows, where `which` names none for each")
        return None
    which = as_indices("which", which)
    check_shape("which", which, values.shape[:1], "a grid for each row of the values")
    return which


def _check_mixture(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, mixture: Tensor
) -> None:
    _check_grids(values, steps, offset, grids)
    check_shape("mixture", mixture, (len(values), len(steps)), "a weight of each step for each row")


def _check_grids(values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor) -> None:
    check_dims("values", values, "N, D")
    check_dims("steps", steps, "S")
    check_shape("grids", grids, (len(steps), 3), "a grid of `grid_table` for each step")
    if offset is not None:
        check_shape("offset", offset, values.shape[1:], "one for each column of the values")


def _check_gradient(gradient: Tensor, values: Tensor, steps: Tensor, gradient_scales: Tensor) -> None:
    check_shape("gradient", gradient, values.shape, "that of the output")
    check_shape("gradient_scales", gradient_scales, steps.shape, "one for each step")


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _native(
    which: Tensor | None,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    *others: Tensor | None,
) -> CDLL | None:
    """The library, where all is on the CPU and every number a float32."""
    held = [tensor for tensor in (values, steps, offset, grids, *others) if tensor is not None]
    if any(tensor.dtype != torch.float32 or not tensor.is_cpu for tensor in held):
        return None
    return native_for(steps, grids) if which is None or which.is_cpu else None


def _triton_serves(values: Tensor, *others: Tensor | None) -> bool:
    return values.dtype == torch.float32 and triton_for(values, *others)


def _weighed(mixture: Tensor, p: int, values: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
    """The rows (n,) that give width p any weight, their values (n, D) and weights (n, 1); None for all."""
    weight = mixture[:, p]
    rows = weight.nonzero().squeeze(1)
    if len(rows) == len(values):
        return None, values, weight.unsqueeze(1)
    return rows, values.index_select(0, rows), weight.index_select(0, rows).unsqueeze(1)


def _by_row(steps: Tensor, grids: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor]:
    """Step (N, 1) and grid (N, 3) of every row, or (1, 1) and (1, 3)."""
    step = (steps.abs() + GUARD).unsqueeze(1)
    if which is None:
        return step, grids
    return step.index_select(0, which), grids.index_select(0, which)


def _units(values: Tensor, step: Tensor, grid: Tensor, offset: Tensor | None) -> Tensor:
    units = values / step if offset is None else (values - offset).div_(step)
    return units.sub_(grid[:, 2:])


def _decoded(codes: Tensor, step: Tensor, grid: Tensor, offset: Tensor | None) -> Tensor:
    scaled = (codes + grid[:, 2:]).mul_(step)
    return scaled if offset is None else scaled.add_(offset)


def _gradients(units: Tensor, codes: Tensor, grid: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d values (N, D); d step of every row (N,) without sign and scale; gradient where clipped (N, D)."""
    shift = grid[:, 2:]
    outside = (units < grid[:, :1] - shift) | (units > grid[:, 1:2] + shift)
    clipped = gradient * outside
    d_step = codes + torch.where(outside, shift, -units)
    return gradient - clipped, d_step.mul_(gradient).sum(1), clipped
