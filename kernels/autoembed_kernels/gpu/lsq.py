"""Fake quantization on a GPU, one pass over the values forward and one backward. See `lsq` for the formulas.

A program serves BLOCK rows and all columns; of a mixture it computes one width after the other from values
that stay in registers. Sums over rows (gradients of steps and offsets) leave a program as one line of partial
sums, which torch adds up: no atomic additions, and the same result each time, except for the steps of rows
with their own ones, which torch's index_add gathers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import launches
from autoembed_kernels.lsq import GUARD

VALUES = 512  # of a program: twice as many spill
_GUARD = tl.constexpr(GUARD)


@triton.jit
def _units(values, zero, step, shift):
    """In steps above the level 0; rounded as torch rounds, which decides between two levels."""
    return tl.div_rn(values - zero, step) - shift


@triton.jit
def _codes(units, lowest, highest):
    """The whole number nearest to units, even in the middle, inside the grid; NaN stays."""
    clipped = tl.where(units < lowest, lowest, tl.where(units > highest, highest, units))
    # adding 1.5 2^23 leaves no bits for a fraction; codes are small
    return (clipped + 12582912.0) - 12582912.0


@triton.jit
def _grid_of(grids, number, here):
    """Lowest code, highest code and shift of these grids."""
    lowest = tl.load(grids + 3 * number, mask=here, other=0.0)
    highest = tl.load(grids + 3 * number + 1, mask=here, other=0.0)
    return lowest, highest, tl.load(grids + 3 * number + 2, mask=here, other=0.0)


@triton.jit
def fake_quantize_kernel(
    values, steps, offset, grids, which, out, count, dim,
    HAS_WHICH: tl.constexpr, HAS_OFFSET: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, COLUMNS)
    here = row < count
    live = here[:, None] & (column[None, :] < dim)
    number = tl.load(which + row, mask=here, other=0) if HAS_WHICH else row * 0
    lowest, highest, shift = _grid_of(grids, number, here)
    step = tl.abs(tl.load(steps + number, mask=here, other=1.0)) + _GUARD
    zero = tl.load(offset + column, mask=column < dim, other=0.0) if HAS_OFFSET else column * 0.0
    place = row[:, None] * dim + column[None, :]
    value = tl.load(values + place, mask=live, other=0.0)
    units = _units(value, zero[None, :], step[:, None], shift[:, None])
    codes = _codes(units, lowest[:, None], highest[:, None])
    tl.store(out + place, (codes + shift[:, None]) * step[:, None] + zero[None, :], mask=live)


@triton.jit
def fake_quantize_gradient_kernel(
    gradient, values, steps, offset, grids, scales, which, d_values, d_rows, d_offsets, count, dim,
    HAS_WHICH: tl.constexpr, HAS_OFFSET: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """d_rows (N,): the step's gradient from a row, scaled, without its sign; d_offsets (programs, dim)."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, COLUMNS)
    here = row < count
    live = here[:, None] & (column[None, :] < dim)
    number = tl.load(which + row, mask=here, other=0) if HAS_WHICH else row * 0
    lowest, highest, shift = _grid_of(grids, number, here)
    step = tl.abs(tl.load(steps + number, mask=here, other=1.0)) + _GUARD
    scale = tl.load(scales + number, mask=here, other=0.0)
    zero = tl.load(offset + column, mask=column < dim, other=0.0) if HAS_OFFSET else column * 0.0
    place = row[:, None] * dim + column[None, :]
    value = tl.load(values + place, mask=live, other=0.0)
    g = tl.load(gradient + place, mask=live, other=0.0)
    units = _units(value, zero[None, :], step[:, None], shift[:, None])
    codes = _codes(units, lowest[:, None], highest[:, None])
    outside = (units < (lowest - shift)[:, None]) | (units > (highest + shift)[:, None])
    tl.store(d_values + place, tl.where(outside, 0.0, g), mask=live)
    moved = (codes + tl.where(outside, shift[:, None] + 0.0 * units, -units)) * g
    tl.store(d_rows + row, tl.sum(tl.where(live, moved, 0.0), axis=1) * scale, mask=here)
    if HAS_OFFSET:
        clipped = tl.sum(tl.where(outside & live, g * scale[:, None], 0.0), axis=0)
        tl.store(d_offsets + tl.program_id(0).to(tl.int64) * dim + column, clipped, mask=column < dim)


@triton.jit
def mix_quantized_kernel(
    values, steps, offset, grids, mixture, out, count, dim,
    WIDTHS: tl.constexpr, HAS_OFFSET: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, COLUMNS)
    here = row < count
    live = here[:, None] & (column[None, :] < dim)
    zero = tl.load(offset + column, mask=column < dim, other=0.0) if HAS_OFFSET else column * 0.0
    place = row[:, None] * dim + column[None, :]
    value = tl.load(values + place, mask=live, other=0.0)
    mixed = tl.zeros([BLOCK, COLUMNS], tl.float32)
    for p in range(0, WIDTHS):
        lowest, highest, shift = _grid_of(grids, p, True)
        step = tl.abs(tl.load(steps + p)) + _GUARD
        weight = tl.load(mixture + row * WIDTHS + p, mask=here, other=0.0)[:, None]
        codes = _codes(_units(value, zero[None, :], step, shift), lowest, highest)
        decoded = (codes + shift) * step + zero[None, :]
        mixed += tl.where(weight != 0, decoded * weight, 0.0)
    tl.store(out + place, mixed, mask=live)


@triton.jit
def mix_quantized_gradient_kernel(
    gradient, values, steps, offset, grids, mixture, d_values, d_steps, d_offsets, d_mixture, count, dim,
    scales, WIDTHS: tl.constexpr, HAS_OFFSET: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """d_steps (programs, WIDTHS) without signs, d_offsets (programs, dim), d_mixture (N, WIDTHS)."""
    program = tl.program_id(0).to(tl.int64)
    row = program * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, COLUMNS)
    here = row < count
    live = here[:, None] & (column[None, :] < dim)
    zero = tl.load(offset + column, mask=column < dim, other=0.0) if HAS_OFFSET else column * 0.0
    place = row[:, None] * dim + column[None, :]
    value = tl.load(values + place, mask=live, other=0.0)
    g = tl.load(gradient + place, mask=live, other=0.0)
    passed = tl.zeros([BLOCK, COLUMNS], tl.float32)
    clipped = tl.zeros([COLUMNS], tl.float32)
    for p in range(0, WIDTHS):
        lowest, highest, shift = _grid_of(grids, p, True)
        step = tl.abs(tl.load(steps + p)) + _GUARD
        scale = tl.load(scales + p)
        weight = tl.load(mixture + row * WIDTHS + p, mask=here, other=0.0)
        weighed = live & (weight != 0)[:, None]
        units = _units(value, zero[None, :], step, shift)
        codes = _codes(units, lowest, highest)
        decoded = (codes + shift) * step + zero[None, :]
        tl.store(d_mixture + row * WIDTHS + p, tl.sum(tl.where(weighed, decoded * g, 0.0), axis=1), mask=here)
        part = tl.where(weighed, g * weight[:, None], 0.0)
        outside = (units < lowest - shift) | (units > highest + shift)
        passed += tl.where(outside, 0.0, part)
        moved = tl.where(weighed, (codes + tl.where(outside, shift + 0.0 * units, -units)) * part, 0.0)
        tl.store(d_steps + program * WIDTHS + p, tl.sum(tl.sum(moved, axis=1), axis=0) * scale)
        if HAS_OFFSET:
            clipped += tl.sum(tl.where(outside, part, 0.0), axis=0) * scale
    tl.store(d_values + place, passed, mask=live)
    if HAS_OFFSET:
        tl.store(d_offsets + program * dim + column, clipped, mask=column < dim)


def block_and_columns(dim: int) -> tuple[int, int]:
    """Rows and columns of a program's tile."""
    columns = int(triton.next_power_of_2(max(1, dim)))
    return max(1, VALUES // columns), columns


@launches
def triton_fake_quantized(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, which: Tensor | None
) -> Tensor:
    """`fake_quantized`: float32 all of them."""
    values = values.contiguous()
    out = torch.empty_like(values)
    block, columns = block_and_columns(values.shape[1])
    if out.numel():
        fake_quantize_kernel[(triton.cdiv(len(values), block),)](
            *(values, steps, offset, grids.contiguous(), which, out, *values.shape),
            HAS_WHICH=which is not None,
            HAS_OFFSET=offset is not None,
            BLOCK=block,
            COLUMNS=columns,
        )
    return out


@launches
def triton_fake_quantized_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`fake_quantized_gradients`."""
    gradient, values = gradient.contiguous(), values.contiguous()
    d_values = torch.empty_like(values)
    d_rows = values.new_zeros(len(values))
    block, columns = block_and_columns(values.shape[1])
    programs = triton.cdiv(len(values), block)
    d_offsets = None if offset is None else values.new_zeros(programs, values.shape[1])
    if values.numel():
        fake_quantize_gradient_kernel[(programs,)](
            *(gradient, values, steps, offset, grids.contiguous(), gradient_scales, which),
            *(d_values, d_rows, d_offsets, *values.shape),
            HAS_WHICH=which is not None,
            HAS_OFFSET=offset is not None,
            BLOCK=block,
            COLUMNS=columns,
        )
    d_steps = torch.zeros_like(steps)
    if which is None:
        d_steps += d_rows.sum()
    else:
        d_steps.index_add_(0, which, d_rows)
    return d_values, d_steps * steps.sign(), None if d_offsets is None else d_offsets.sum(0)


@launches
def triton_mixed_quantized(
    values: Tensor, steps: Tensor, offset: Tensor | None, grids: Tensor, mixture: Tensor
) -> Tensor:
    """`mixed_quantized`."""
    values, mixture = values.contiguous(), mixture.contiguous()
    out = torch.empty_like(values)
    block, columns = block_and_columns(values.shape[1])
    if out.numel():
        mix_quantized_kernel[(triton.cdiv(len(values), block),)](
            *(values, steps, offset, grids.contiguous(), mixture, out, *values.shape),
            WIDTHS=len(steps),
            HAS_OFFSET=offset is not None,
            BLOCK=block,
            COLUMNS=columns,
        )
    return out


@launches
def triton_mixed_quantized_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """`mixed_quantized_gradients`."""
    gradient, values, mixture = gradient.contiguous(), values.contiguous(), mixture.contiguous()
    d_values, d_mixture = torch.empty_like(values), torch.empty_like(mixture)
    block, columns = block_and_columns(values.shape[1])
    programs = triton.cdiv(len(values), block)
    d_steps = values.new_zeros(programs, len(steps))
    d_offsets = None if offset is None else values.new_zeros(programs, values.shape[1])
    if values.numel():
        mix_quantized_gradient_kernel[(programs,)](
            *(gradient, values, steps, offset, grids.contiguous(), mixture),
            *(d_values, d_steps, d_offsets, d_mixture, *values.shape, gradient_scales),
            WIDTHS=len(steps),
            HAS_OFFSET=offset is not None,
            BLOCK=block,
            COLUMNS=columns,
        )
    d_offset = None if d_offsets is None else d_offsets.sum(0)
    return d_values, d_steps.sum(0) * steps.sign(), d_offset, d_mixture
