"""Bags of packed rows on a GPU: a program decodes and sums the look-ups of BLOCK bags. See `pool_packed`.

Look-up t of every bag of the program is decoded at the same time, so that the vectors in between stay in
registers; a bag is summed from left to right.
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

MOST_VALUES = 2048  # of a program
WARPS = 1  # a thread finds the segments of a bag's rows, if there are as many bags as threads


@triton.jit
def pool_kernel(
    words, rows, offsets, weights, means, out, bags, examples,
    start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
    base, shape, numbers, offset, offset_rows,
    segments, width,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    ANY_AWAY: tl.constexpr, ANY_HASHED: tl.constexpr, ANY_CODED: tl.constexpr,
    INTEGERS: tl.constexpr, HALVES: tl.constexpr, BRAINS: tl.constexpr, SINGLES: tl.constexpr,
    NARROW: tl.constexpr, WHOLE_ROWS: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_OFFSET: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    bag = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_bag = bag < bags
    first = tl.load(offsets + bag, mask=is_bag, other=0)
    stop = tl.load(offsets + bag + 1, mask=is_bag, other=0)
    sums = tl.zeros([BLOCK, COLUMNS], tl.float32)
    for t in range(0, tl.max((stop - first).to(tl.int32), axis=0)):
        place = first + t
        # -1 behind the end of a bag
        row = tl.load(rows + place, mask=place < stop, other=-1).to(tl.int64)
        segment, stored = found(
            tl.maximum(row, 0),
            start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
            segments, STEPS, BLOCK, ANY_AWAY, ANY_HASHED, ANY_CODED,
        )  # fmt: skip
        values = decoded(
            words, segment, stored, row >= 0,
            base, shape, numbers, offset, offset_rows, width,
            INTEGERS, HALVES, BRAINS, SINGLES, NARROW, WHOLE_ROWS, ROW_SCALES, ROW_BIASES, ANY_OFFSET,
            BLOCK, COLUMNS,
        )  # fmt: skip
        if WEIGHTED:
            values *= tl.load(weights + place, mask=place < stop, other=0.0)[:, None]
        sums += tl.where((row >= 0)[:, None], values, 0.0)
    of_field = bag // examples
    is_mean = tl.load(means + of_field, mask=is_bag, other=0) != 0
    divisor = tl.where(is_mean, tl.maximum(stop - first, 1), 1).to(tl.float32)
    target = (bag % examples) * (bags // examples) + of_field
    column = tl.arange(0, COLUMNS)[None, :]
    mean = tl.div_rn(sums, tl.broadcast_to(divisor[:, None], sums.shape))
    tl.store(out + target[:, None] * width + column, mean, mask=is_bag[:, None] & (column < width))


def tile(width: int, kinds: int) -> tuple[int, int]:
    """Bags and columns of a program that reads so many kinds of numbers."""
    columns = max(4, int(triton.next_power_of_2(width)))
    most = MOST_VALUES if kinds < 3 else MOST_VALUES // 4  # the code of several kinds takes registers
    return max(1, min(32 * WARPS, most // columns)), columns


@launches
def triton_pool_packed(
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    rows: Tensor,
    offsets: Tensor,
    means: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """`pool_packed` without a check of rows and offsets; rows int64 or int32, all contiguous."""
    fields, bags, width = len(means), len(offsets) - 1, segments.width
    examples = bags // max(1, fields)
    out = torch.empty(examples, fields, width, device=words.device)
    if out.numel() == 0:
        return out
    block, columns = tile(width, len(segments.kinds))
    held = segment_words(segments)
    pool_kernel[(triton.cdiv(bags, block),)](
        *(words.view(torch.int32), rows, offsets, weights, means.view(torch.uint8), out, bags, examples),
        *address_tensors(addresses),
        *held.tensors,
        *(len(segments.base), width),
        **address_flags(addresses),
        **held.flags,
        WEIGHTED=weights is not None,
        BLOCK=block,
        COLUMNS=columns,
        num_warps=WARPS,
    )
    return out
