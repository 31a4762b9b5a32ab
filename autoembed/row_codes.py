"""Rows of one segment -> their bytes in the payload, in the row layout of a hardware profile.

    packed            codes                       value = (code - 2^(b-1) [+ 1/2]) * scale + offset
    packed-row-scale  fp16 scale, codes           value = (code - 2^(b-1) [+ 1/2]) * scale
    fbgemm-*          fp16 scale, fp16 bias, codes, zeros up to row_align       value = code * scale + bias
    fp16, bf16, fp32  the values, zeros up to row_align

[+ 1/2] stands for the mid-rise grid. Codes are the ones that LSQ fake quantization trains with, in the same
float32 arithmetic (round half to even), so a packed row equals the trained row:

    code = clip(round((w - offset) / scale [- 1/2]), -2^(b-1), 2^(b-1) - 1) + 2^(b-1)
"""

import torch
from torch import Tensor

from autoembed.plan import BITS, Profile, Segment
from autoembed_kernels.bitpack import pack_bits

FLOAT_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def encode_rows(
    profile: Profile, segment: Segment, values: Tensor, scale: Tensor | None, offset: Tensor | None
) -> Tensor:
    """values (n, dim) float32 -> (n, row_bytes) uint8.

    `scale` is a scalar or (n, 1), positive or zero; None fits one per row, which the profile must hold in
    the row. `offset` (dim,) or None. A value that does not fit the row's format raises ValueError.
    """
    if not segment.is_integer:
        codes = _float_bytes(values, FLOAT_DTYPES[segment.precision])
    elif profile.row_scale_bytes == 0:
        assert scale is not None
        codes = pack_bits(
            _codes(segment, values - offset if offset is not None else values, scale), segment.bits
        )
    elif profile.row_scale_bytes == 2:
        scale = _half(_symmetric_scale(segment, values) if scale is None else scale, len(values))
        codes = _behind([scale], pack_bits(_codes(segment, values, scale.float()), segment.bits))
    else:
        codes = _fbgemm_bytes(segment, values, scale)
    padding = profile.row_bytes(segment.dim, segment.precision) - codes.shape[1]
    return torch.nn.functional.pad(codes, (0, padding))


def _codes(segment: Segment, values: Tensor, scale: Tensor) -> Tensor:
    half = 1 << (BITS[segment.precision] - 1)
    steps = torch.where(
        scale > 0, values / scale, 0.0
    )  # a scale of 0 decodes to the offset, whatever the code
    if segment.mid_rise:
        steps = steps - 0.5
    return (steps.round().clamp(-half, half - 1) + half).to(torch.uint8)


def _fbgemm_bytes(segment: Segment, values: Tensor, scale: Tensor | None) -> Tensor:
    levels = (1 << segment.bits) - 1
    if scale is not None:
        scale = _half(scale, len(values))
        half = 1 << (segment.bits - 1)
        bias = _half(scale.float() * (0.5 - half if segment.mid_rise else -half), len(values))
        return _behind([scale, bias], pack_bits(_codes(segment, values, scale.float()), segment.bits))
    low = values.amin(1, keepdim=True)
    bias = _half(low, len(values))
    scale = _half((values.amax(1, keepdim=True) - bias.float()) / levels, len(values))
    scale = torch.where(scale > 0, scale, 1.0).half()  # a constant row: every code is 0
    codes = ((values - bias.float()) / scale.float()).round().clamp(0, levels)
    return _behind([scale, bias], pack_bits(codes.to(torch.uint8), segment.bits))


def _symmetric_scale(segment: Segment, values: Tensor) -> Tensor:
    half = 1 << (segment.bits - 1)
    reach = half - 0.5 if segment.mid_rise else max(half - 1, 1)
    return values.abs().amax(1, keepdim=True) / reach


def _half(numbers: Tensor, rows: int) -> Tensor:
    """One fp16 number per row, (rows, 1)."""
    halves = numbers.expand(rows, 1).half()
    if not torch.isfinite(halves).all():
        raise ValueError(
            f"a row's scale or bias of {float(numbers.abs().max()):g} does not fit fp16 (at most 65504); "
            "rows this large come from a diverged training"
        )
    return halves


def _float_bytes(values: Tensor, dtype: torch.dtype) -> Tensor:
    cast = values.to(dtype)
    if not torch.isfinite(cast).all():
        raise ValueError(
            f"a value of {float(values.abs().max()):g} does not fit {str(dtype).removeprefix('torch.')}; "
            "store the segment as fp32 or bf16, or lower the learning rate"
        )
    return cast.contiguous().view(torch.uint8)


def _behind(front: list[Tensor], codes: Tensor) -> Tensor:
    return torch.cat([*(number.contiguous().view(torch.uint8) for number in front), codes], dim=1)
