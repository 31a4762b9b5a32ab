"""Cast float32 to a 16-bit float or to a code so that the expectation is the value: up or down by chance.

For x between its neighbours down and up (multiples of the spacing at x, towards and away from zero):

    P(up) = (x - down) / (up - down),    hence    E[cast(x)] = x

bfloat16, and float16 from 2^-14 on, keep the upper bits of a float32: a random number as long as the bits
that fall away, at most 16, is added to them, and they are cut off. Chances are exact to the last of these
bits. Below 2^-14 float16 is spaced by 2^-24, and x 2^24 + u is rounded down, in float64. A value
that 16 bits hold exactly is never changed; NaN and infinity stay; above 65504 a float16 may become infinite.

Codes are whole numbers of steps: floor(x / step + u), in float64.

A number of 16 random bits c is all that a cast takes: u = (c + 1/2) / 2^16. Its chances are off by 2^-17 at
most, for codes of 8 bits less than float32 tells apart at the row's largest value.
"""

import math

import torch
from torch import Tensor

from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.operators import operators

_DROPPED_BITS = {torch.bfloat16: 16, torch.float16: 13}
_SMALLEST_NORMAL = 2.0**-14
_SUBNORMAL_SPACING = 2.0**-24


def stochastic_round(values: Tensor, chances: Tensor, dtype: torch.dtype) -> Tensor:
    """values float32, chances of the same shape, int64 in [0, 2^16) -> `dtype`, float16 or bfloat16."""
    if torch.compiler.is_compiling():
        traced: Tensor = operators().stochastic_round(values, chances, dtype)
        return traced
    return eager_stochastic_round(values, chances, dtype)


def eager_stochastic_round(values: Tensor, chances: Tensor, dtype: torch.dtype) -> Tensor:
    """`stochastic_round` itself."""
    if triton_for(values, chances):
        from autoembed_kernels.gpu.stochastic_round import triton_stochastic_round

        return triton_stochastic_round(values, chances, dtype)
    return torch_stochastic_round(values, chances, dtype)


def torch_stochastic_round(values: Tensor, chances: Tensor, dtype: torch.dtype) -> Tensor:
    """`stochastic_round` in torch, on any device."""
    dropped = (1 << _DROPPED_BITS[dtype]) - 1
    bits = values.contiguous().view(torch.int32)
    # sign and magnitude: adding to the magnitude's bits rounds away from zero
    rounded = ((bits + (chances & dropped).to(torch.int32)) & ~dropped).view(torch.float32)
    rounded = torch.where(torch.isfinite(values), rounded, values)
    if dtype is torch.float16:
        small = (values.abs() < _SMALLEST_NORMAL) & (values != 0)
        chosen = values[small].double() / _SUBNORMAL_SPACING
        rounded[small] = ((chosen + _even(chances[small])).floor() * _SUBNORMAL_SPACING).float()
    return rounded.to(dtype)


def stochastic_codes(values: Tensor, steps: Tensor, chances: Tensor, lowest: int, highest: int) -> Tensor:
    """values (N, D) float32, steps (N, 1) > 0, chances as above -> codes (N, D) int8 in [lowest, highest]."""
    if torch.compiler.is_compiling():
        traced: Tensor = operators().stochastic_codes(values, steps, chances, lowest, highest)
        return traced
    return eager_stochastic_codes(values, steps, chances, lowest, highest)


def eager_stochastic_codes(
    values: Tensor, steps: Tensor, chances: Tensor, lowest: int, highest: int
) -> Tensor:
    """`stochastic_codes` itself."""
    if triton_for(values, steps, chances):
        from autoembed_kernels.gpu.stochastic_round import triton_stochastic_codes

        return triton_stochastic_codes(values, steps, chances, lowest, highest)
    return torch_stochastic_codes(values, steps, chances, lowest, highest)


def torch_stochastic_codes(
    values: Tensor, steps: Tensor, chances: Tensor, lowest: int, highest: int
) -> Tensor:
    """`stochastic_codes` in torch, on any device."""
    codes = (values.double() / steps.double() + _even(chances)).floor()
    return codes.clamp(lowest, highest).to(torch.int8)


def _even(chances: Tensor) -> Tensor:
    """Numbers even in (0, 1), float64."""
    return (chances.double() + 0.5) * 2.0**-16


def reference(value: float, chance: int, dtype: torch.dtype) -> float:
    """One finite value, in Python's floats."""
    smallest, digits = {torch.float16: (-14, 10), torch.bfloat16: (-126, 7)}[dtype]
    if value == 0:
        return value
    exponent = max(math.frexp(abs(value))[1] - 1, smallest)
    spacing = 2.0 ** (exponent - digits)
    if dtype is torch.float16 and abs(value) < _SMALLEST_NORMAL:
        return math.floor(value / spacing + (chance + 0.5) * 2.0**-16) * spacing
    bits = _DROPPED_BITS[dtype]
    part = (chance & ((1 << bits) - 1)) / (1 << bits)
    return math.copysign(math.floor(abs(value) / spacing + part) * spacing, value)
