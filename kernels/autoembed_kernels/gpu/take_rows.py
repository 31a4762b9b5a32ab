"""Rows of a table on a GPU, as they are or widened to float32. See `dedupe.take_rows`, `low_row_values`.

On an H200 torch's `index_select` copies rows of 16 and 64 floats at .03 and .12 of the speed of a copy, this
one at .80 and .87 (kernels/bench/gpu.md).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import launches

MOST_VALUES = 8192  # of a program
WARPS = 2  # as fast as 4 on an H200, or 2 % faster


@triton.jit
def take_rows_kernel(
    table, steps, rows, out, count, dim, STEPS: tl.constexpr, BLOCK: tl.constexpr, COLUMNS: tl.constexpr
):
    """table (R, dim), rows (count,) -> out (count, dim); STEPS: times the step of the row."""
    look_up = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = look_up < count
    row = tl.load(rows + look_up, mask=here, other=0).to(tl.int64)
    column = tl.arange(0, COLUMNS)[None, :]
    live = here[:, None] & (column < dim)
    values = tl.load(table + row[:, None] * dim + column, mask=live, other=0.0)
    if STEPS:
        step = tl.load(steps + row, mask=here, other=0.0).to(tl.float32)
        values = values.to(tl.float32) * step[:, None]
    tl.store(out + look_up[:, None] * dim + column, values.to(out.dtype.element_ty), mask=live,
             cache_modifier=".cs")  # fmt: skip


def tile(dim: int) -> tuple[int, int, int]:
    """Look-ups, columns and warps of a program."""
    columns = int(triton.next_power_of_2(dim))
    return max(1, min(32 * WARPS, MOST_VALUES // columns)), columns, WARPS


@launches
def triton_take_rows(table: Tensor, rows: Tensor, steps: Tensor | None = None) -> Tensor:
    """table (R, D) contiguous, rows (N,) -> table[rows] (N, D) float32, times steps[rows] where given."""
    out = torch.empty(len(rows), table.shape[1], dtype=torch.float32, device=table.device)
    if out.numel():
        block, columns, warps = tile(table.shape[1])
        take_rows_kernel[(triton.cdiv(len(rows), block),)](
            *(table, steps, rows.contiguous(), out, *out.shape),
            STEPS=steps is not None,
            BLOCK=block,
            COLUMNS=columns,
            num_warps=warps,
        )
    return out
