"""Vectors looked up chunk by chunk on a GPU, pointers and values in one kernel. See `chunk_look_up`.

A program serves BLOCK look-ups and all columns of their vectors; the columns of a chunk read one pointer.
"""

import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import launches

VALUES = 512  # of a program


@triton.jit
def chunk_look_up_kernel(
    pool, pointers, entry, rows, out, count, chunks, dim,
    VIRTUAL: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    row = tl.load(rows + look_up, mask=here, other=0).to(tl.int64)
    known = here
    if VIRTUAL:
        row = tl.load(entry + row, mask=here, other=-1).to(tl.int64)
        known = here & (row >= 0)
    width = chunks * dim
    column = tl.arange(0, COLUMNS)[None, :]
    chunk = column // dim
    live = known[:, None] & (column < width)
    place = tl.load(pointers + row[:, None] * chunks + chunk, mask=live, other=-1).to(tl.int64)
    values = tl.load(pool + place * dim + (column - chunk * dim), mask=live & (place >= 0), other=0.0)
    tl.store(out + look_up[:, None] * width + column, values, mask=here[:, None] & (column < width))


@launches
def triton_chunk_look_up(pool: Tensor, pointers: Tensor, entry: Tensor | None, rows: Tensor) -> Tensor:
    """`chunk_look_up` without a check of the rows; all contiguous."""
    chunks, dim = pointers.shape[1], pool.shape[1]
    out = pool.new_empty(len(rows), chunks * dim)
    if out.numel() == 0:
        return out
    columns = int(triton.next_power_of_2(chunks * dim))
    block = max(1, VALUES // columns)
    chunk_look_up_kernel[(triton.cdiv(len(rows), block),)](
        *(pool, pointers, entry, rows, out, len(rows), chunks, dim),
        VIRTUAL=entry is not None,
        BLOCK=block,
        COLUMNS=columns,
    )
    return out
