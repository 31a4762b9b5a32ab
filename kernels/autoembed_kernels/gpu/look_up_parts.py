"""Rows in parts looked up on a GPU in one kernel, part by part. See `look_up_parts`.

No column is written twice, because threads write in any order: a row's first part leaves the columns of the
others out.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gather_packed import PackedSegments
from autoembed_kernels.gpu.gather_packed import decoded, segment_words
from autoembed_kernels.gpu.look_up_packed import address_flags, address_tensors, found
from autoembed_kernels.gpu.present import launches
from autoembed_kernels.look_up_packed import PackedRows


@triton.jit
def look_up_parts_kernel(
    words, rows, tails, out, count,
    start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
    base, shape, numbers, offset, offsets,
    segments, width,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, MOST: tl.constexpr,
    ANY_AWAY: tl.constexpr, ANY_HASHED: tl.constexpr, ANY_CODED: tl.constexpr,
    INTEGERS: tl.constexpr, HALVES: tl.constexpr, BRAINS: tl.constexpr, SINGLES: tl.constexpr,
    NARROW: tl.constexpr, WHOLE_ROWS: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_OFFSET: tl.constexpr,
):  # fmt: skip
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    row = tl.load(rows + look_up, mask=here, other=0).to(tl.int64)
    segment, stored = found(
        row,
        start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
        segments, STEPS, BLOCK, ANY_AWAY, ANY_HASHED, ANY_CODED,
    )  # fmt: skip
    behind = tl.load(tails + segment)
    begin = (tl.load(shape + segment) >> 32) & 0xFFFF
    end = begin
    for part in tl.static_range(1, MOST + 1):
        is_part = here & (part <= behind)
        end += tl.where(is_part, (tl.load(shape + segment + part, mask=is_part, other=0) >> 32) & 0xFFFF, 0)
    column = tl.arange(0, COLUMNS)[None, :]
    values = decoded(
        words, segment, stored, here,
        base, shape, numbers, offset, offsets, width,
        INTEGERS, HALVES, BRAINS, SINGLES, NARROW, WHOLE_ROWS, ROW_SCALES, ROW_BIASES, ANY_OFFSET,
        BLOCK, COLUMNS,
    )  # fmt: skip
    own = (column < begin[:, None]) | (column >= end[:, None])
    tl.store(out + look_up[:, None] * width + column, values, mask=here[:, None] & (column < width) & own)
    for part in tl.static_range(1, MOST + 1):
        is_part = here & (part <= behind)
        tail = tl.where(is_part, segment + part, 0)
        values = decoded(
            words, tail, stored, is_part,
            base, shape, numbers, offset, offsets, width,
            INTEGERS, HALVES, BRAINS, SINGLES, NARROW, WHOLE_ROWS, ROW_SCALES, ROW_BIASES, ANY_OFFSET,
            BLOCK, COLUMNS,
        )  # fmt: skip
        dims = tl.where(is_part, (tl.load(shape + tail) >> 32) & 0xFFFF, 0)
        tl.store(out + look_up[:, None] * width + begin[:, None] + column, values,
                 mask=is_part[:, None] & (column < dims[:, None]))  # fmt: skip
        begin += dims


def tile(width: int) -> tuple[int, int, int]:
    """Look-ups, columns and warps of a program."""
    columns = max(4, int(triton.next_power_of_2(width)))
    return max(1, min(32, 512 // columns)), columns, 1


@launches
def triton_look_up_parts(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, tails: Tensor, most: int, rows: Tensor
) -> Tensor:
    """`look_up_parts` without a check of the rows: (N,) int64 or int32, contiguous -> (N, W) float32."""
    count, width = len(rows), segments.width
    out = torch.empty(count, width, device=rows.device)
    if count == 0 or width == 0:
        return out
    held = segment_words(segments)
    block, columns, warps = tile(width)
    look_up_parts_kernel[(triton.cdiv(count, block),)](
        *(words.view(torch.int32), rows, tails, out, count),
        *address_tensors(addresses),
        *held.tensors,
        *(len(segments.base), width),
        **address_flags(addresses),
        **held.flags,
        MOST=most,
        BLOCK=block,
        COLUMNS=columns,
        num_warps=warps,
    )
    return out
