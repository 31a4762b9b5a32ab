"""Gradients of repeated look-ups summed on a GPU, in the same order each time and without atomic additions.

`Repeats` has the look-ups sorted by their row; they are cut into chunks of CHUNK places. There are two kinds
of rows:

    light    no chunk lies inside the row's span, which has less than 2 CHUNK places: a program sums many such
             rows side by side, AT_ONCE look-ups of each at a time
    heavy    the first chunk inside its span has a program of its own: it adds what lies before, the sums of
             whole chunks, which programs of their own made before, and what lies behind, CHUNK at a time

So a row that 40,000 look-ups read costs a few steps, and most rows, read once or twice, cost one. Light and
heavy rows are summed beside one another, on two streams: both wait for memory most of the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import launches

# On an H200, dimension 16: chunks of 64 take 138 microseconds where chunks of 128 take 157, before light and
# heavy rows ran beside one another
CHUNK = 64
AT_ONCE = 8  # look-ups of a light row whose gradients are on their way together
VALUES = 512  # of a program that sums light rows
WARPS = 4
_CHUNK = tl.constexpr(CHUNK)
_AT_ONCE = tl.constexpr(AT_ONCE)


@triton.jit
def chunk_rows_kernel(starts, out, distinct, chunks, steps, BLOCK: tl.constexpr):
    """out (chunks,): the distinct row of every chunk's first place, by bisection in `steps` steps."""
    chunk = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    low = chunk * 0
    high = low + distinct
    for _ in range(0, steps):  # starts[low] <= place < starts[high]
        middle = (low + high) >> 1
        below = tl.load(starts + middle, mask=middle < distinct, other=0x7FFFFFFFFFFFFFFF) <= chunk * _CHUNK
        low = tl.where(below, middle, low)
        high = tl.where(below, high, middle)
    tl.store(out + chunk, low, mask=chunk < chunks)


@triton.jit
def span_of(starts, u, distinct, lookups):
    """Where the look-ups of distinct rows u start and stop in `order`; nothing for u >= distinct."""
    here = u < distinct
    start = tl.load(starts + u, mask=here, other=0)
    stop = tl.load(starts + u + 1, mask=u + 1 < distinct, other=lookups)
    return start, tl.where(here, stop, start)


@triton.jit
def is_heavy(start, stop):
    """Whether a chunk lies inside the span."""
    return ((start + _CHUNK - 1) // _CHUNK + 1) * _CHUNK <= stop


@triton.jit
def chunk_sums_kernel(
    gradient,
    order,
    starts,
    chunk_rows,
    out,
    distinct,
    lookups,
    dim,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """gradient (N, dim), order (N,) -> out (chunks, dim), where a chunk has one row."""
    chunk = tl.program_id(0).to(tl.int64)
    _, stop = span_of(starts, tl.load(chunk_rows + chunk), distinct, lookups)
    if stop >= (chunk + 1) * CHUNK:
        column = tl.arange(0, COLUMNS)
        lookup = tl.load(order + chunk * CHUNK + tl.arange(0, CHUNK))
        values = tl.load(gradient + lookup[:, None] * dim + column[None, :],
                         mask=(lookup[:, None] >= 0) & (column[None, :] < dim), other=0.0)  # fmt: skip
        tl.store(out + chunk * dim + column, tl.sum(values, axis=0), mask=column < dim)


@triton.jit
def _sum_of(gradient, order, place, here, dim, COLUMNS: tl.constexpr):
    """The sum (COLUMNS,) of the gradients of the look-ups at these places of `order`."""
    column = tl.arange(0, COLUMNS)[None, :]
    lookup = tl.load(order + place, mask=here, other=0)
    values = tl.load(gradient + lookup[:, None] * dim + column,
                     mask=here[:, None] & (column < dim), other=0.0)  # fmt: skip
    return tl.sum(values, axis=0)


@triton.jit
def heavy_row(starts, chunk_rows, chunk, distinct, lookups):
    """The row of a chunk's first place, its span, and whether the chunk is the first one inside it."""
    u = tl.load(chunk_rows + chunk)
    start, stop = span_of(starts, u, distinct, lookups)
    inside = (start <= chunk * _CHUNK) & (stop >= (chunk + 1) * _CHUNK)
    return u, start, stop, inside & (start > (chunk - 1) * _CHUNK)


@triton.jit
def heavy_sum(
    gradient, order, chunk_sums, chunk, start, stop, dim, CHUNK: tl.constexpr, COLUMNS: tl.constexpr
):
    """The sum (COLUMNS,) over the look-ups start .. stop - 1, of which `chunk` is the first whole chunk."""
    column = tl.arange(0, COLUMNS)
    step = tl.arange(0, CHUNK)
    total = _sum_of(gradient, order, start + step, start + step < chunk * CHUNK, dim, COLUMNS)
    end = stop // CHUNK
    for first in range(chunk, end, CHUNK):
        here = first + step < end
        values = tl.load(chunk_sums + (first + step)[:, None] * dim + column[None, :],
                         mask=here[:, None] & (column[None, :] < dim), other=0.0)  # fmt: skip
        total += tl.sum(values, axis=0)
    return total + _sum_of(gradient, order, end * CHUNK + step, end * CHUNK + step < stop, dim, COLUMNS)


@triton.jit
def light_sum(gradient, order, start, stop, dim, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    """Sums (BLOCK, COLUMNS) over the look-ups start .. stop - 1 (BLOCK,)."""
    column = tl.arange(0, COLUMNS)[None, :]
    sums = tl.zeros([BLOCK, COLUMNS], tl.float32)
    longest = tl.max((stop - start).to(tl.int32), axis=0)
    for first in range(0, longest, _AT_ONCE):
        for k in tl.static_range(_AT_ONCE):
            place = start + (first + k)
            # -1 where there is no look-up: a mask of its own for the gradient trips a pass of Triton 3.6
            lookup = tl.load(order + place, mask=place < stop, other=-1)[:, None]
            sums += tl.load(gradient + lookup * dim + column, mask=(lookup >= 0) & (column < dim),
                            other=0.0)  # fmt: skip
    return sums


@cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextmanager
def beside(like: Tensor) -> Iterator[None]:
    """What is launched inside runs beside what is launched behind, until `joined`; it may be captured."""
    if not like.is_cuda:  # in the interpreter
        yield
        return
    side = _beside(like.device)
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield


def joined(like: Tensor) -> None:
    """What is launched from now on waits for what runs `beside`."""
    if like.is_cuda:
        torch.cuda.current_stream().wait_stream(_beside(like.device))


@triton.jit
def sum_heavy_kernel(
    gradient, order, starts, chunk_rows, chunk_sums, out, distinct, lookups, dim,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    chunk = tl.program_id(0).to(tl.int64)
    u, start, stop, mine = heavy_row(starts, chunk_rows, chunk, distinct, lookups)
    if mine:
        total = heavy_sum(gradient, order, chunk_sums, chunk, start, stop, dim, CHUNK, COLUMNS)
        column = tl.arange(0, COLUMNS)
        tl.store(out + u * dim + column, total, mask=column < dim)


@triton.jit
def sum_light_kernel(
    gradient, order, starts, out, distinct, lookups, dim, BLOCK: tl.constexpr, COLUMNS: tl.constexpr
):
    u = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    start, stop = span_of(starts, u, distinct, lookups)
    light = (u < distinct) & (is_heavy(start, stop) == 0)
    sums = light_sum(gradient, order, start, tl.where(light, stop, start), dim, BLOCK, COLUMNS)
    column = tl.arange(0, COLUMNS)[None, :]
    tl.store(out + u[:, None] * dim + column, sums, mask=light[:, None] & (column < dim))


def light_tile(dim: int, values: int, least: int = 1) -> tuple[int, int]:
    """Rows and columns of a program that holds about `values` numbers."""
    columns = max(least, int(triton.next_power_of_2(dim)))
    return max(1, values // columns), columns


def heavy_warps(columns: int) -> int:
    """Of a program that sums CHUNK rows at a time: 16 numbers a thread, up to 64 columns."""
    return max(1, min(8, CHUNK * columns // 512))


def chunk_places(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Room for what `chunk_sums` finds: (chunks,) int64 and (chunks, D) float32."""
    chunks = len(gradient) // CHUNK
    chunk_rows = torch.empty(chunks, dtype=torch.int64, device=gradient.device)
    return chunk_rows, gradient.new_empty(chunks, gradient.shape[1])


def chunk_sums(gradient: Tensor, order: Tensor, starts: Tensor, chunk_rows: Tensor, out: Tensor) -> None:
    """The distinct row (chunks,) of every chunk's first place, and of gradient (N, D) the sums (chunks, D) of
    the chunks that one row reads; others are left as they are."""
    lookups, dim = gradient.shape
    chunks = len(out)
    if out.numel():
        chunk_rows_kernel[(triton.cdiv(chunks, 128),)](
            *(starts, chunk_rows, len(starts), chunks, len(starts).bit_length()), BLOCK=128
        )
        columns = int(triton.next_power_of_2(dim))
        chunk_sums_kernel[(chunks,)](
            *(gradient, order, starts, chunk_rows, out, len(starts), lookups, dim),
            CHUNK=CHUNK,
            COLUMNS=columns,
            num_warps=heavy_warps(columns),
        )


@launches
def triton_sum_repeats(gradient: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    """`sum_repeats`: gradient (N, D) float32, contiguous -> (U, D)."""
    lookups, dim = gradient.shape
    out = gradient.new_empty(len(starts), dim)
    if out.numel():
        block, columns = light_tile(dim, VALUES)
        chunk_rows, sums = chunk_places(gradient)
        sizes = (len(starts), lookups, dim)
        if len(chunk_rows):
            with beside(gradient):
                chunk_sums(gradient, order, starts, chunk_rows, sums)
                sum_heavy_kernel[(len(chunk_rows),)](
                    *(gradient, order, starts, chunk_rows, sums, out, *sizes),
                    CHUNK=CHUNK,
                    COLUMNS=columns,
                    num_warps=heavy_warps(columns),
                )
        sum_light_kernel[(triton.cdiv(len(starts), block),)](
            *(gradient, order, starts, out, *sizes), BLOCK=block, COLUMNS=columns, num_warps=WARPS
        )
        if len(chunk_rows):
            joined(gradient)
    return out


@triton.jit
def place_rows_kernel(ascending, place, unique, starts, count, BLOCK: tl.constexpr):
    """ascending (N,) sorted rows, place (N,) starts up to each, itself counted -> unique and starts (N,)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = i < count
    at = tl.load(place + i, mask=here, other=0).to(tl.int64)
    before = tl.load(place + i - 1, mask=here & (i > 0), other=0).to(tl.int64)
    is_start = here & (at != before)
    row = tl.load(ascending + i, mask=is_start, other=0).to(tl.int64)
    tl.store(unique + at - 1, row, mask=is_start)
    tl.store(starts + at - 1, i, mask=is_start)
    # behind the last distinct row
    spare = here & (i >= tl.load(place + count - 1))
    tl.store(unique + i, i * 0, mask=spare)
    tl.store(starts + i, i * 0 + count, mask=spare)


@launches
def padded_dedupe(rows: Tensor, bound: int = 2**63 - 1) -> tuple[Tensor, Tensor, Tensor]:
    """rows (N,) in [0, bound) -> distinct rows, order and starts of `Repeats`, (N,) int64 all three.

    As many places as look-ups, so that no size depends on the values, nothing waits for the GPU and a CUDA
    graph can hold it: behind the last distinct row, starts are N and rows 0, which `triton_row_update` leaves
    alone. Rows below 2^31 are sorted as 32-bit numbers.
    """
    count = len(rows)
    keys = rows.to(torch.int32) if bound <= 2**31 else rows
    ascending, order = keys.sort(stable=True)
    is_start = torch.ones_like(ascending, dtype=torch.bool)
    torch.ne(ascending[1:], ascending[:-1], out=is_start[1:])
    place = is_start.cumsum(0, dtype=torch.int32 if count < 2**31 else torch.int64)
    unique, starts = (torch.empty(count, dtype=torch.int64, device=rows.device) for _ in range(2))
    if count:
        place_rows_kernel[(triton.cdiv(count, 1024),)](ascending, place, unique, starts, count, BLOCK=1024)
    return unique, order, starts
