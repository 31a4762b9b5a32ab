"""Gradients of repeated look-ups summed on a GPU, in the same order each time and without atomic additions.

`Repeats` has the look-ups sorted by their row. They are cut into chunks of CHUNK places. A chunk that lies
inside one row's span is summed by a program of its own first; then a row sums what is before its first whole
chunk, the chunks' sums, and what is behind the last. So a row that 20,000 look-ups read costs about
2 CHUNK + 20,000 / CHUNK steps in a row instead of 20,000, and rows read once or twice cost one or two.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import launches

CHUNK = 64
VALUES = 512  # of a program that sums rows
_CHUNK = tl.constexpr(CHUNK)


@triton.jit
def chunk_sums_kernel(
    gradient, order, starts, out, distinct, steps, dim, CHUNK: tl.constexpr, COLUMNS: tl.constexpr
):
    """gradient (N, dim), order (N,), starts (distinct,) -> out (chunks, dim), where a chunk has one row."""
    chunk = tl.program_id(0).to(tl.int64)
    # the first row that starts behind the chunk's first place, by bisection in `steps` steps
    low = chunk * 0
    high = low + distinct
    for _ in range(0, steps):
        middle = (low + high) >> 1
        behind = tl.load(starts + middle, mask=middle < distinct, other=0x7FFFFFFFFFFFFFFF) > chunk * CHUNK
        high = tl.where(behind, middle, high)
        low = tl.where(behind, low, tl.minimum(middle + 1, high))
    next_start = tl.load(starts + low, mask=low < distinct, other=0x7FFFFFFFFFFFFFFF)
    if next_start >= (chunk + 1) * CHUNK:
        column = tl.arange(0, COLUMNS)
        lookup = tl.load(order + chunk * CHUNK + tl.arange(0, CHUNK))
        values = tl.load(gradient + lookup[:, None] * dim + column[None, :],
                         mask=(lookup[:, None] >= 0) & (column[None, :] < dim), other=0.0)  # fmt: skip
        tl.store(out + chunk * dim + column, tl.sum(values, axis=0), mask=column < dim)


@triton.jit
def repeated_sum(gradient, order, chunk_sums, start, stop, dim, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums (BLOCK, COLUMNS) of the look-ups start .. stop - 1 (BLOCK,) of `order`."""
    column = tl.arange(0, COLUMNS)[None, :]
    first_whole = (start + _CHUNK - 1) // _CHUNK
    end_whole = tl.maximum(stop // _CHUNK, first_whole)
    # without a whole chunk everything comes before it
    head_stop = tl.where(end_whole > first_whole, first_whole * _CHUNK, stop)
    tail_start = tl.where(end_whole > first_whole, end_whole * _CHUNK, stop)
    sums = tl.zeros([BLOCK, COLUMNS], tl.float32)
    for t in range(0, tl.max(head_stop - start, axis=0)):
        here = start + t < head_stop
        lookup = tl.load(order + start + t, mask=here, other=0)
        sums += tl.load(gradient + lookup[:, None] * dim + column,
                        mask=here[:, None] & (column < dim), other=0.0)  # fmt: skip
    for t in range(0, tl.max(end_whole - first_whole, axis=0)):
        here = first_whole + t < end_whole
        sums += tl.load(chunk_sums + (first_whole + t)[:, None] * dim + column,
                        mask=here[:, None] & (column < dim), other=0.0)  # fmt: skip
    for t in range(0, tl.max(stop - tail_start, axis=0)):
        here = tail_start + t < stop
        lookup = tl.load(order + tail_start + t, mask=here, other=0)
        sums += tl.load(gradient + lookup[:, None] * dim + column,
                        mask=here[:, None] & (column < dim), other=0.0)  # fmt: skip
    return sums


@triton.jit
def span_of(starts, u, distinct, lookups):
    """Where the look-ups of distinct rows u start and stop in `order`; nothing for u >= distinct."""
    here = u < distinct
    start = tl.load(starts + u, mask=here, other=0)
    stop = tl.load(starts + u + 1, mask=u + 1 < distinct, other=lookups)
    return start, tl.where(here, stop, start)


@triton.jit
def sum_repeats_kernel(
    gradient, order, starts, chunk_sums, out, distinct, lookups, dim,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    u = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    start, stop = span_of(starts, u, distinct, lookups)
    sums = repeated_sum(gradient, order, chunk_sums, start, stop, dim, BLOCK, COLUMNS)
    column = tl.arange(0, COLUMNS)[None, :]
    tl.store(out + u[:, None] * dim + column, sums, mask=(u < distinct)[:, None] & (column < dim))


def chunk_sums(gradient: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """Of gradient (N, D): sums of the whole chunks of CHUNK look-ups that one row reads, others undefined."""
    lookups, dim = gradient.shape
    out = gradient.new_empty(lookups // CHUNK, dim)
    if out.numel():
        columns = int(triton.next_power_of_2(dim))
        warps = max(1, min(8, CHUNK * columns // 512))
        chunk_sums_kernel[(len(out),)](
            *(gradient, order, starts, out, len(starts), len(starts).bit_length(), dim),
            CHUNK=CHUNK,
            COLUMNS=columns,
            num_warps=warps,
        )
    return out


@launches
def triton_sum_repeats(gradient: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """`sum_repeats`: gradient (N, D) float32, contiguous -> (U, D)."""
    lookups, dim = gradient.shape
    out = gradient.new_empty(len(starts), dim)
    if out.numel():
        columns = int(triton.next_power_of_2(dim))
        block = max(1, VALUES // columns)
        sum_repeats_kernel[(triton.cdiv(len(starts), block),)](
            *(gradient, order, starts, chunk_sums(gradient, order, starts), out),
            *(len(starts), lookups, dim),
            BLOCK=block,
            COLUMNS=columns,
        )
    return out


def padded_dedupe(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """rows (N,) -> distinct rows, inverse, order and starts of `Repeats`, (N,) all four.

    As many places as look-ups, so that no size depends on the values and a CUDA graph can hold it: behind
    the last distinct row, starts are N and rows 0, which `triton_row_update` leaves alone.
    """
    count = len(rows)
    ascending, order = rows.sort(stable=True)
    is_start = torch.ones_like(ascending, dtype=torch.bool)
    torch.ne(ascending[1:], ascending[:-1], out=is_start[1:])
    place = is_start.cumsum(0).sub_(1)
    inverse = torch.empty_like(place).scatter_(0, order, place)
    # what is no start is written to a place behind all others
    target = torch.where(is_start, place, count)
    starts = torch.full((count + 1,), count, device=rows.device)
    starts.scatter_(0, target, torch.arange(count, device=rows.device))
    unique = torch.zeros(count + 1, dtype=torch.int64, device=rows.device)
    unique.scatter_(0, target, ascending.to(torch.int64))
    return unique[:count], inverse, order, starts[:count]
