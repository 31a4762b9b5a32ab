"""Pairs of rows and blocks of a pool looked up on a GPU, addresses and values at once: `look_up_shared`.

A program serves BLOCK look-ups and all columns, as in `look_up_packed`. Of a pair both rows are decoded. Of a
vector from a pool every column finds its own slot, and a block of Z columns hashes Z times.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gather_packed import BF16, FP16, FP32, PackedSegments
from autoembed_kernels.gpu.gather_packed import decoded, segment_words, two_words
from autoembed_kernels.gpu.look_up_packed import (
    address_flags,
    address_tensors,
    coded_row,
    hashed_row,
    segment_of,
)
from autoembed_kernels.gpu.present import launches
from autoembed_kernels.look_up_packed import PackedRows
from autoembed_kernels.look_up_shared import POOLED, SIGNED, SharedRows
from autoembed_kernels.quotient_remainder import ADD, CONCATENATE, MULTIPLY

_FP16, _BF16, _FP32 = (tl.constexpr(kind) for kind in (FP16, BF16, FP32))
_ADD, _MULTIPLY, _CONCATENATE = (tl.constexpr(how) for how in (ADD, MULTIPLY, CONCATENATE))
_POOLED, _SIGNED = tl.constexpr(POOLED), tl.constexpr(SIGNED)


@triton.jit
def _pool_slots(
    segment, row, place, chosen, column, is_signed, field, masks, index_at, index,
    blocks, pool_block, buckets,
    ANY_SIGNED: tl.constexpr,
):  # fmt: skip
    """row of its field, place in its segment (BLOCK,), column (COLUMNS,) -> slots of both."""
    block = (column // pool_block)[None, :].to(tl.int64)
    key = row[:, None] + 0 * block
    salt = tl.load(field + segment)[:, None] * 65536 + block
    if ANY_SIGNED:
        at = tl.load(index_at + segment) + 8 * place
        signature = tl.zeros_like(at)
        for byte in tl.static_range(8):
            part = tl.load(index + at + byte, mask=chosen & is_signed, other=0).to(tl.int64)
            signature |= part << (8 * byte)
        live = (chosen & is_signed)[:, None] & (block < blocks)
        mask = tl.load(masks + segment[:, None] * blocks + block, mask=live, other=0)
        key = tl.where(is_signed[:, None], signature[:, None] & mask, key)
        salt = tl.where(is_signed[:, None], block + 1099511627776, salt)
    # a number that is 1 is no tensor to the compiler
    return hashed_row(key, salt, buckets + tl.zeros_like(key)) + (column % pool_block)[None, :]


@triton.jit
def look_up_shared_kernel(
    words, rows, out, count,
    start, field_start, field_segment, field, buckets, code_bits, code_at, reads_row_0, hashed, codes,
    how, ids, multiplier, remainders, quotients, index_at, masks, index,
    pool_block, blocks, pool_buckets, pool_dim,
    base, shape, numbers, offset, offsets,
    segments, width,
    STEPS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
    ANY_AWAY: tl.constexpr, ANY_HASHED: tl.constexpr, ANY_CODED: tl.constexpr,
    ANY_PAIRED: tl.constexpr, ANY_POOLED: tl.constexpr, ANY_SIGNED: tl.constexpr,
    INTEGERS: tl.constexpr, HALVES: tl.constexpr, BRAINS: tl.constexpr, SINGLES: tl.constexpr,
    NARROW: tl.constexpr, WHOLE_ROWS: tl.constexpr,
    ROW_SCALES: tl.constexpr, ROW_BIASES: tl.constexpr, ANY_OFFSET: tl.constexpr,
):  # fmt: skip
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    row = tl.load(rows + look_up, mask=here, other=0).to(tl.int64)
    segment, row = segment_of(
        row, start, field_start, field_segment, reads_row_0, segments, STEPS, BLOCK, ANY_AWAY
    )
    place = row - tl.load(start + segment)
    of_field = row - tl.load(field_start + segment)
    ways = tl.load(how + segment)
    column = tl.arange(0, COLUMNS)
    stored = place
    if ANY_HASHED:
        bucket = hashed_row(of_field, tl.load(field + segment), tl.load(buckets + segment))
        stored = tl.where(tl.load(hashed + segment) != 0, bucket, stored)
    if ANY_CODED:
        stored = coded_row(stored, segment, code_bits, code_at, codes)
    paired = here & (ways >= _ADD) & (ways <= _CONCATENATE)
    if ANY_PAIRED:
        permuted = place * tl.load(multiplier + segment) % tl.load(ids + segment)
        divisor = tl.load(remainders + segment)
        quotient = permuted // divisor
        stored = tl.where(paired, quotient, stored)
        second = tl.where(paired, tl.load(quotients + segment) + permuted - quotient * divisor, 0)
    pooled = here & (ways >= _POOLED)
    single = here & (ways < _POOLED)
    values = decoded(
        words, segment, stored, single,
        base, shape, numbers, offset, offsets, width,
        INTEGERS, HALVES, BRAINS, SINGLES, NARROW, WHOLE_ROWS, ROW_SCALES, ROW_BIASES, ANY_OFFSET,
        BLOCK, COLUMNS,
    )  # fmt: skip
    written = here[:, None] & (column[None, :] < width)
    if ANY_PAIRED:
        seconds = decoded(
            words, segment, second, paired,
            base, shape, numbers, offset, offsets, width,
            INTEGERS, HALVES, BRAINS, SINGLES, NARROW, WHOLE_ROWS, ROW_SCALES, ROW_BIASES, ANY_OFFSET,
            BLOCK, COLUMNS,
        )  # fmt: skip
        values = tl.where((paired & (ways == _ADD))[:, None], values + seconds, values)
        values = tl.where((paired & (ways == _MULTIPLY))[:, None], values * seconds, values)
        # behind one another: the second row has a store of its own, and the first leaves its columns out
        behind = (paired & (ways == _CONCATENATE))[:, None]
        dims = ((tl.load(shape + segment) >> 32) & 0xFFFF)[:, None]
        second_at = look_up[:, None] * width + dims + column[None, :]
        tl.store(out + second_at, seconds, mask=behind & (column[None, :] < dims))
        written = written & ~(behind & (column[None, :] >= dims) & (column[None, :] < 2 * dims))
    if ANY_POOLED:
        live = pooled[:, None] & (column[None, :] < pool_dim)
        slots = _pool_slots(
            segment, of_field, place, pooled, column, ways == _SIGNED, field, masks, index_at, index,
            blocks, pool_block, pool_buckets, ANY_SIGNED,
        )  # fmt: skip
        kinds = ((tl.load(shape + segment) >> 56) & 0xF)[:, None]
        byte = tl.load(base + segment)[:, None] + slots * tl.where(kinds == _FP32, 4, 2)
        word = words + (byte >> 2)
        shift = (byte & 3).to(tl.int32) * 8
        raw = two_words(tl.load(word, mask=live, other=0), tl.load(word + 1, mask=live, other=0), shift)
        half = raw.to(tl.uint16)
        read = tl.where(kinds == _FP16, half.to(tl.float16, bitcast=True).to(tl.float32),
                        raw.to(tl.float32, bitcast=True))  # fmt: skip
        brain = (half.to(tl.uint32) << 16).to(tl.float32, bitcast=True)
        read = tl.where(kinds == _BF16, brain, read)
        values = tl.where(pooled[:, None], tl.where(live, read, 0.0), values)
    tl.store(out + look_up[:, None] * width + column[None, :], values, mask=written)


def tile(width: int) -> tuple[int, int, int]:
    """Look-ups, columns and warps of a program: two rows of a pair at a time take registers."""
    columns = max(4, int(triton.next_power_of_2(width)))
    return max(1, min(32, 1024 // columns)), columns, max(2, min(4, columns // 16))


@launches
def triton_look_up_shared(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, shared: SharedRows, rows: Tensor
) -> Tensor:
    """`look_up_shared` without a check of the rows: (N,) int64 or int32, contiguous -> (N, W) float32."""
    count, width = len(rows), segments.width
    out = torch.empty(count, width, device=rows.device)
    if count == 0 or width == 0:
        return out
    held = segment_words(segments)
    block, columns, warps = tile(width)
    look_up_shared_kernel[(triton.cdiv(count, block),)](
        *(words.view(torch.int32), rows, out, count),
        *address_tensors(addresses),
        *(shared.how, shared.ids, shared.multiplier, shared.remainders, shared.quotients, shared.index_at),
        *(shared.masks, shared.index, max(1, shared.block), shared.blocks),
        *(max(1, shared.slots - shared.block + 1), shared.dim),
        *held.tensors,
        *(len(segments.base), width),
        **address_flags(addresses),
        BLOCK=block,
        COLUMNS=columns,
        ANY_PAIRED=any(ADD <= kind <= CONCATENATE for kind in shared.kinds),
        ANY_POOLED=shared.blocks > 0,
        ANY_SIGNED=SIGNED in shared.kinds,
        **held.flags,
        num_warps=warps,
    )
    return out
