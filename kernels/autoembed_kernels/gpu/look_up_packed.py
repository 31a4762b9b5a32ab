"""Look-ups in packed tables on a GPU, in one kernel: segment, stored row, decoding. See `look_up_packed`.

A program serves BLOCK look-ups and all columns. The segment is found by bisection of the segments' first
rows, which stay in the cache. Every value, of 1 to 8, 16 or 32 bits, is cut out of the 64 bits that two
neighbouring 32-bit words make:

    bit   = 8 * (base + stored * row_bytes + front) + column * bits
    value = words[bit / 32 .. bit / 32 + 1] >> (bit mod 32), its lowest `bits` bits

Columns of a row lie side by side, so that the loads of a row fall into the same cache lines.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gather_packed import BF16, FP16, FP32, INTEGER, PackedSegments
from autoembed_kernels.look_up_packed import PackedRows

VALUES = 512  # of a program: more of them spill or leave few programs on a multiprocessor
_INTEGER, _FP16, _BF16, _FP32 = (tl.constexpr(kind) for kind in (INTEGER, FP16, BF16, FP32))


@triton.jit
def _row_hash(row, salt, buckets):
    """`row_hash` of rows, in unsigned 64-bit arithmetic."""
    mixed = row.to(tl.uint64) + (salt + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB
    mixed = mixed ^ (mixed >> 31)
    return ((mixed >> 1) % buckets.to(tl.uint64)).to(tl.int64)


@triton.jit
def _bits_at(words, bit, mask):
    """The 32 bits from bit address `bit` on, as uint32."""
    word = words + (bit >> 5)
    low = tl.load(word, mask=mask, other=0).to(tl.uint32, bitcast=True)
    high = tl.load(word + 1, mask=mask, other=0).to(tl.uint32, bitcast=True)
    both = low.to(tl.uint64) | (high.to(tl.uint64) << 32)
    return (both >> (bit & 31).to(tl.uint64)).to(tl.uint32)


@triton.jit
def _half_at(words, bit, mask):
    return _bits_at(words, bit, mask).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def look_up_kernel(
    words, rows, out, count,
    start, field_start, field_segment, field, buckets, reads_row_0, hashed,
    base, row_bytes, dim, bits, kind, front, shift, scale, offset, offsets,
    segments, width,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    ANY_AWAY: tl.constexpr, ANY_HASHED: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_FLOAT: tl.constexpr, ANY_OFFSET: tl.constexpr,
):  # fmt: skip
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    row = tl.load(rows + look_up, mask=here, other=0)
    low = tl.zeros([BLOCK], tl.int64)
    high = low + segments
    for _ in tl.static_range(STEPS):  # start[low] <= row < start[high]
        middle = (low + high) >> 1
        below = tl.load(start + middle, mask=middle < segments, other=0x7FFFFFFFFFFFFFFF) <= row
        low = tl.where(below, middle, low)
        high = tl.where(below, high, middle)
    segment = low
    if ANY_AWAY:
        away = tl.load(reads_row_0 + segment) != 0
        row = tl.where(away, tl.load(field_start + segment), row)
        segment = tl.where(away, tl.load(field_segment + segment), segment)
    stored = row - tl.load(start + segment)
    if ANY_HASHED:
        bucket = _row_hash(
            row - tl.load(field_start + segment), tl.load(field + segment), tl.load(buckets + segment)
        )
        stored = tl.where(tl.load(hashed + segment) != 0, bucket, stored)
    at = tl.load(base + segment) + stored * tl.load(row_bytes + segment)
    dims = tl.load(dim + segment)
    value_bits = tl.load(bits + segment)
    kinds = tl.load(kind + segment)
    value_bits = tl.where(kinds == _FP32, 32, tl.where(kinds == _INTEGER, value_bits, 16))

    column = tl.arange(0, COLUMNS)
    live = here[:, None] & (column[None, :] < dims[:, None])
    bit = (at + tl.load(front + segment))[:, None] * 8 + column[None, :] * value_bits[:, None]
    raw = _bits_at(words, bit, live)
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
    tl.store(out + look_up[:, None] * width + column[None, :], values,
             mask=here[:, None] & (column[None, :] < width))  # fmt: skip


def triton_look_up_packed(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, rows: Tensor
) -> Tensor:
    """`look_up_packed` without a check of the rows: (N,) int64 or int32, contiguous -> (N, W) float32."""
    count, width = len(rows), segments.width
    out = torch.empty(count, width, device=rows.device)
    if count == 0 or width == 0:
        return out
    columns = triton.next_power_of_2(width)
    block = max(1, VALUES // columns)
    look_up_kernel[(triton.cdiv(count, block),)](
        *(words.view(torch.int32), rows, out, count),
        *(addresses.start, addresses.field_start, addresses.field_segment, addresses.field),
        *(addresses.buckets, addresses.reads_row_0.view(torch.uint8), addresses.hashed.view(torch.uint8)),
        *(segments.base, segments.row_bytes, segments.dim, segments.bits, segments.kind, segments.front),
        *(segments.shift, segments.scale, segments.offset, segments.offsets),
        *(len(segments.base), width),
        STEPS=len(segments.base).bit_length(),
        BLOCK=block,
        COLUMNS=columns,
        ANY_AWAY=addresses.any_reads_row_0,
        ANY_HASHED=addresses.any_hashed,
        ROW_SCALES=segments.row_scales,
        ROW_BIASES=segments.row_biases,
        ANY_FLOAT=any(kind != INTEGER for kind in segments.kinds),
        ANY_OFFSET=segments.any_offset,
    )
    return out
