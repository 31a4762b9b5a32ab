"""Rows of packed tables decoded on a GPU. See `gather_packed` for the layout.

A program serves BLOCK look-ups and all columns. Every value, of 1 to 8, 16 or 32 bits, is cut out of the 64
bits that two neighbouring 32-bit words make:

    bit   = 8 * (base + stored * row_bytes + front) + column * bits
    value = words[bit / 32 .. bit / 32 + 1] >> (bit mod 32), its lowest `bits` bits

Columns of a row lie side by side, so that the loads of a row fall into the same cache lines.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gather_packed import BF16, FP16, FP32, INTEGER, PackedSegments
from autoembed_kernels.gpu.present import launches

VALUES = 512  # of a program: more of them spill or leave few programs on a multiprocessor
_INTEGER, _FP16, _BF16, _FP32 = (tl.constexpr(kind) for kind in (INTEGER, FP16, BF16, FP32))


@triton.jit
def bits_at(words, bit, mask):
    """The 32 bits from bit address `bit` on, as uint32."""
    word = words + (bit >> 5)
    low = tl.load(word, mask=mask, other=0).to(tl.uint32, bitcast=True)
    high = tl.load(word + 1, mask=mask, other=0).to(tl.uint32, bitcast=True)
    both = low.to(tl.uint64) | (high.to(tl.uint64) << 32)
    return (both >> (bit & 31).to(tl.uint64)).to(tl.uint32)


@triton.jit
def _half_at(words, bit, mask):
    return bits_at(words, bit, mask).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def decoded(
    words, segment, stored, here, column,
    base, row_bytes, dim, bits, kind, front, shift, scale, offset, offsets, width,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_FLOAT: tl.constexpr, ANY_OFFSET: tl.constexpr,
):  # fmt: skip
    """Segments and stored rows (BLOCK,), columns (COLUMNS,) -> values (BLOCK, COLUMNS) float32."""
    at = tl.load(base + segment) + stored * tl.load(row_bytes + segment)
    dims = tl.load(dim + segment)
    value_bits = tl.load(bits + segment)
    kinds = tl.load(kind + segment)
    value_bits = tl.where(kinds == _FP32, 32, tl.where(kinds == _INTEGER, value_bits, 16))

    live = here[:, None] & (column[None, :] < dims[:, None])
    bit = (at + tl.load(front + segment))[:, None] * 8 + column[None, :] * value_bits[:, None]
    raw = bits_at(words, bit, live)
    codes = raw & ((1 << tl.minimum(value_bits, 8)) - 1).to(tl.uint32)[:, None]
    step = tl.load(scale + segment)
    scaled = here & (dims > 0) & (kinds == _INTEGER)  # floats have no scale in their rows
    if ROW_SCALES:
        step = _half_at(words, at * 8, scaled)
    values = (codes.to(tl.float32) + tl.load(shift + segment)[:, None]) * step[:, None]
    if ROW_BIASES:
        values += _half_at(words, at * 8 + 16, scaled)[:, None]
    elif ANY_OFFSET:
        place = tl.load(offset + segment)[:, None] * width + column[None, :]
        values += tl.load(offsets + place, mask=column[None, :] < width, other=0.0)
    if ANY_FLOAT:
        half = raw.to(tl.uint16)
        values = tl.where((kinds == _FP16)[:, None], half.to(tl.float16, bitcast=True).to(tl.float32), values)
        brain = (half.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
        values = tl.where((kinds == _BF16)[:, None], brain, values)
        values = tl.where((kinds == _FP32)[:, None], raw.to(tl.float32, bitcast=True), values)
    values = tl.where(live, values, 0.0)
    return values


@triton.jit
def gather_kernel(
    words, segments, rows, out, count,
    base, row_bytes, dim, bits, kind, front, shift, scale, offset, offsets, width,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_FLOAT: tl.constexpr, ANY_OFFSET: tl.constexpr,
):  # fmt: skip
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    segment = tl.load(segments + look_up, mask=here, other=0)
    stored = tl.load(rows + look_up, mask=here, other=0)
    column = tl.arange(0, COLUMNS)
    values = decoded(
        words, segment, stored, here, column,
        base, row_bytes, dim, bits, kind, front, shift, scale, offset, offsets, width,
        ROW_SCALES, ROW_BIASES, ANY_FLOAT, ANY_OFFSET,
    )  # fmt: skip
    tl.store(out + look_up[:, None] * width + column[None, :], values,
             mask=here[:, None] & (column[None, :] < width))  # fmt: skip


def tile(width: int) -> tuple[int, int]:
    """Look-ups and columns of a program."""
    columns = int(triton.next_power_of_2(width))
    return max(1, VALUES // columns), columns


def segment_arguments(segments: PackedSegments) -> tuple[Tensor, ...]:
    """Tensors of the segments in the order of the kernels."""
    return (
        *(segments.base, segments.row_bytes, segments.dim, segments.bits, segments.kind, segments.front),
        *(segments.shift, segments.scale, segments.offset, segments.offsets),
    )


def segment_flags(segments: PackedSegments) -> dict[str, bool]:
    """What the kernels are compiled for."""
    return {
        "ROW_SCALES": segments.row_scales,
        "ROW_BIASES": segments.row_biases,
        "ANY_FLOAT": any(kind != INTEGER for kind in segments.kinds),
        "ANY_OFFSET": segments.any_offset,
    }


@launches
def triton_gather_packed(words: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor) -> Tensor:
    """`gather_packed` without a check: segment and row (N,) int64, contiguous -> (N, W) float32."""
    count, width = len(row), segments.width
    out = torch.empty(count, width, device=row.device)
    if count == 0 or width == 0:
        return out
    block, columns = tile(width)
    gather_kernel[(triton.cdiv(count, block),)](
        *(words.view(torch.int32), segment, row, out, count),
        *segment_arguments(segments),
        width,
        BLOCK=block,
        COLUMNS=columns,
        **segment_flags(segments),
    )
    return out
