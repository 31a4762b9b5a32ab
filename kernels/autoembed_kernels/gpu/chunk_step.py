"""Utilities and updates of chunks on a GPU in one kernel, without a list of those in the pool: `chunk_step`.

A program serves BLOCK chunks, those of an entry one behind the other. Entries are distinct and no place
belongs to two chunks, so that nothing is added atomically and results are the same in every run.
"""

import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.dedupe import light_tile
from autoembed_kernels.gpu.present import launches
from autoembed_kernels.gpu.row_update import VALUES, WARPS, numbers_for, row_change
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, state_tensors


@triton.jit
def chunk_step_kernel(
    pool, moment, square, touches, utility, pointers, entries, gradient, numbers, count, chunks, dim,
    OPTIMIZER: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """gradient (count, dim) of the chunks of entries (count / chunks,)."""
    number = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    known = number < count
    of = number // chunks
    chunk = tl.load(entries + of, mask=known, other=0).to(tl.int64) * chunks + (number - of * chunks)
    column = tl.arange(0, COLUMNS)[None, :]
    g = tl.load(gradient + number[:, None] * dim + column, mask=known[:, None] & (column < dim), other=0.0)
    used = tl.load(utility + chunk, mask=known, other=0.0) + tl.sqrt_rn(tl.sum(g * g, axis=1))

    row = tl.load(pointers + chunk, mask=known, other=-1).to(tl.int64)
    here = known & (row >= 0)
    live = here[:, None] & (column < dim)
    at = row[:, None] * dim + column
    old = tl.load(pool + at, mask=live, other=0.0)
    g = tl.where(live, g + tl.load(numbers + 2).to(tl.float32) * old, 0.0)
    change = row_change(g, row, at, here, live, dim, moment, square, touches, numbers, OPTIMIZER)
    tl.store(utility + chunk, used, mask=known)
    tl.store(pool + at, old - tl.load(numbers).to(tl.float32) * change, mask=live)


@launches
def triton_chunk_step(
    optimizer: RowOptimizer,
    pool: Tensor,
    state: dict[str, Tensor],
    utility: Tensor,
    pointers: Tensor,
    entries: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """`chunk_step` without a check of the entries; gradient (U, k z), all contiguous."""
    chunks, dim = pointers.shape[1], pool.shape[1]
    count = len(entries) * chunks
    if count == 0:
        return
    block, columns = light_tile(dim, VALUES)
    chunk_step_kernel[(triton.cdiv(count, block),)](
        *(pool, *state_tensors(state), utility, pointers, entries, gradient.contiguous()),
        *(numbers_for(optimizer, learning_rate, pool), count, chunks, dim),
        OPTIMIZER=OPTIMIZERS.index(optimizer.name),
        BLOCK=block,
        COLUMNS=columns,
        num_warps=WARPS,
    )
