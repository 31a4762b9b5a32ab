"""Casts by chance on a GPU: the numbers of `autoembed_kernels.stochastic_round`, bit for bit."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import launches

BLOCK = 1024  # values of a program


@triton.jit
def to_sixteen_bits(values, chances, HALF: tl.constexpr):
    """values float32, chances uint32 of the same shape, of 16 bits -> float16 where HALF, else bfloat16."""
    DROPPED: tl.constexpr = 0x1FFF if HALF else 0xFFFF
    bits = values.to(tl.uint32, bitcast=True)
    finite = (bits & 0x7F800000) != 0x7F800000
    rounded = (bits + (chances & DROPPED)) & (0xFFFFFFFF - DROPPED)
    if HALF:
        number = tl.where(finite, rounded.to(tl.float32, bitcast=True), values)
        small = (tl.abs(values) < 2.0**-14) & (values != 0)
        # exact in float64: a product with a power of two, then one rounded sum, as in torch
        steps = tl.floor(
            values.to(tl.float64) * 16777216.0
            + ((chances * 2 + 1).to(tl.float32) * (2.0**-17)).to(tl.float64)
        )
        result = tl.where(small, (steps * (2.0**-24)).to(tl.float32), number).to(tl.float16)
    else:
        # the upper half is the number, also below the smallest normal one, where casts may flush to zero
        unchanged = tl.where(values != values, bits | 0x400000, bits)
        result = (tl.where(finite, rounded, unchanged) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return result


@triton.jit
def to_nearest_bfloat16(values):
    """values float32 -> bfloat16, halves to the even one; the interpreter's own cast cuts bits off."""
    bits = values.to(tl.uint32, bitcast=True)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    kept = tl.where(values != values, bits | 0x400000, rounded)
    return (kept >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)


@triton.jit
def to_codes(values, steps, chances, lowest, highest):
    """values float32, chances uint32, of one shape, steps that broadcast -> whole numbers of steps, float64.

    The quotient is what a division gives, for a third of the time: one division a step, then a product and
    its remainder, which is exact.
    """
    wide, divisor = values.to(tl.float64), steps.to(tl.float64)
    inverse = tl.broadcast_to(1.0 / divisor, wide.shape)
    quotient = wide * inverse
    remainder = tl.fma(-quotient, tl.broadcast_to(divisor, wide.shape), wide)
    quotient = tl.fma(remainder, inverse, quotient)
    codes = tl.floor(quotient + ((chances * 2 + 1).to(tl.float32) * (2.0**-17)).to(tl.float64))
    return tl.minimum(tl.maximum(codes, lowest), highest)


@triton.jit
def stochastic_round_kernel(values, chances, out, count, HALF: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    value = tl.load(values + place, mask=here, other=0.0)
    chance = tl.load(chances + place, mask=here, other=0).to(tl.uint32)
    tl.store(out + place, to_sixteen_bits(value, chance, HALF), mask=here)


@triton.jit
def stochastic_codes_kernel(values, steps, chances, out, count, width, lowest, highest, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    value = tl.load(values + place, mask=here, other=0.0)
    step = tl.load(steps + place // width, mask=here, other=1.0)
    chance = tl.load(chances + place, mask=here, other=0).to(tl.uint32)
    tl.store(out + place, to_codes(value, step, chance, lowest, highest).to(tl.int8), mask=here)


@launches
def triton_stochastic_round(values: Tensor, chances: Tensor, dtype: torch.dtype) -> Tensor:
    """`stochastic_round`: values float32, chances int64 of the same shape -> `dtype`."""
    out = torch.empty(values.shape, dtype=dtype, device=values.device)
    if out.numel():
        stochastic_round_kernel[(triton.cdiv(out.numel(), BLOCK),)](
            *(values.contiguous(), chances.contiguous(), out, out.numel()),
            HALF=dtype is torch.float16,
            BLOCK=BLOCK,
        )
    return out


@launches
def triton_stochastic_codes(
    values: Tensor, steps: Tensor, chances: Tensor, lowest: int, highest: int
) -> Tensor:
    """`stochastic_codes`: values (N, D) float32, steps (N, 1), chances (N, D) int64 -> (N, D) int8."""
    out = torch.empty(values.shape, dtype=torch.int8, device=values.device)
    if out.numel():
        stochastic_codes_kernel[(triton.cdiv(out.numel(), BLOCK),)](
            *(values.contiguous(), steps.contiguous(), chances.contiguous(), out),
            *(out.numel(), values.shape[1], float(lowest), float(highest)),
            BLOCK=BLOCK,
        )
    return out
