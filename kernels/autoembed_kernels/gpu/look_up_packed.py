"""Look-ups in packed tables on a GPU, in one kernel: segment, stored row, decoding. See `look_up_packed`.

A program serves BLOCK look-ups and all columns. The segment is found by bisection of the segments' first
rows, which stay in the cache; `gather_packed` has the decoding.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gather_packed import PackedSegments
from autoembed_kernels.gpu.gather_packed import decoded, segment_words, tile, write_rows
from autoembed_kernels.gpu.present import launches
from autoembed_kernels.look_up_packed import PackedRows


@triton.jit
def hashed_row(row, salt, buckets):
    """`row_hash` of rows, in unsigned 64-bit arithmetic."""
    mixed = row.to(tl.uint64) + (salt + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB
    mixed = mixed ^ (mixed >> 31)
    return ((mixed >> 1) % buckets.to(tl.uint64)).to(tl.int64)


@triton.jit
def segment_of(
    row, start, field_start, field_segment, reads_row_0, segments,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, ANY_AWAY: tl.constexpr,
):  # fmt: skip
    """Rows (BLOCK,) -> the segments that store what they read, and the rows that are read."""
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
    return segment, row


@triton.jit
def coded_row(place, segment, code_bits, code_at, codes):
    """`read_codes` of the places of rows in their segments; the place itself where a segment has no codes."""
    bits = tl.load(code_bits + segment)
    bit = place * bits
    byte = codes + tl.where(bits > 0, tl.load(code_at + segment) + (bit >> 3), 0)
    word = tl.load(byte).to(tl.int64) | (tl.load(byte + 1).to(tl.int64) << 8)
    code = (word >> (bit & 7)) & ((1 << bits) - 1)
    return tl.where(bits > 0, code, place)


@triton.jit
def found(
    row,
    start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
    segments,
    STEPS: tl.constexpr, BLOCK: tl.constexpr,
    ANY_AWAY: tl.constexpr, ANY_HASHED: tl.constexpr, ANY_CODED: tl.constexpr,
):  # fmt: skip
    """Rows (BLOCK,) -> their segments and stored rows."""
    segment, row = segment_of(
        row, start, field_start, field_segment, reads_row_0, segments, STEPS, BLOCK, ANY_AWAY
    )
    stored = row - tl.load(start + segment)
    if ANY_HASHED:
        bucket = hashed_row(
            row - tl.load(field_start + segment), tl.load(field + segment), tl.load(buckets + segment)
        )
        stored = tl.where(tl.load(hashed + segment) != 0, bucket, stored)
    if ANY_CODED:
        stored = coded_row(stored, segment, code_bits, code_at, codes)
    return segment, stored


@triton.jit
def look_up_kernel(
    words, rows, out, count,
    start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
    base, shape, numbers, offset, offsets,
    segments, width,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    ANY_AWAY: tl.constexpr, ANY_HASHED: tl.constexpr, ANY_CODED: tl.constexpr,
    INTEGERS: tl.constexpr, HALVES: tl.constexpr, BRAINS: tl.constexpr, SINGLES: tl.constexpr,
    NARROW: tl.constexpr, WHOLE_ROWS: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_OFFSET: tl.constexpr,
):  # fmt: skip
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    row = tl.load(rows + look_up, mask=here, other=0)
    segment, stored = found(
        row,
        start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
        segments, STEPS, BLOCK, ANY_AWAY, ANY_HASHED, ANY_CODED,
    )  # fmt: skip
    values = decoded(
        words, segment, stored, here,
        base, shape, numbers, offset, offsets, width,
        INTEGERS, HALVES, BRAINS, SINGLES, NARROW, WHOLE_ROWS, ROW_SCALES, ROW_BIASES, ANY_OFFSET,
        BLOCK, COLUMNS,
    )  # fmt: skip
    write_rows(out, values, look_up, here, width, COLUMNS)


def address_tensors(addresses: PackedRows) -> tuple[Tensor, ...]:
    """In the order of the kernels."""
    return (
        *(addresses.start, addresses.field_start, addresses.field_segment, addresses.field),
        *(addresses.buckets, addresses.code_bits, addresses.code_at),
        *(addresses.reads_row_0.view(torch.uint8), addresses.hashed.view(torch.uint8), addresses.codes),
    )


def address_flags(addresses: PackedRows) -> dict[str, int]:
    """What the kernels are compiled for."""
    return {
        "STEPS": len(addresses.start).bit_length(),
        "ANY_AWAY": addresses.any_reads_row_0,
        "ANY_HASHED": addresses.any_hashed,
        "ANY_CODED": addresses.any_coded,
    }


@launches
def triton_look_up_packed(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, rows: Tensor
) -> Tensor:
    """`look_up_packed` without a check of the rows: (N,) int64 or int32, contiguous -> (N, W) float32."""
    count, width = len(rows), segments.width
    out = torch.empty(count, width, device=rows.device)
    if count == 0 or width == 0:
        return out
    block, columns, warps = tile(width, len(segments.kinds))
    held = segment_words(segments)
    look_up_kernel[(triton.cdiv(count, block),)](
        *(words.view(torch.int32), rows, out, count),
        *address_tensors(addresses),
        *held.tensors,
        *(len(segments.base), width),
        BLOCK=block,
        COLUMNS=columns,
        **address_flags(addresses),
        **held.flags,
        num_warps=warps,
    )
    return out
