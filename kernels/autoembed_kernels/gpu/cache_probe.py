"""Rows looked for in a set-associative cache on a GPU: `cache_probe`.

A program serves BLOCK rows and all ways of their sets, whose tags lie side by side.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.look_up_packed import hashed_row
from autoembed_kernels.gpu.present import launches

VALUES = 1024  # tags of a program


@triton.jit
def cache_probe_kernel(tags, rows, out, count, sets, ways, BLOCK: tl.constexpr, WAYS: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    row = tl.load(rows + place, mask=here, other=0).to(tl.int64)
    zero = tl.zeros_like(row)
    # a number that is 1 is no tensor to the compiler
    first = hashed_row(row, zero, sets + zero) * ways
    way = tl.arange(0, WAYS)[None, :]
    live = here[:, None] & (way < ways)
    tag = tl.load(tags + first[:, None] + way, mask=live, other=-1)
    hit = live & (tag.to(tl.int64) == row[:, None])
    found = tl.min(tl.where(hit, way, WAYS), axis=1)
    tl.store(out + place, tl.where(found < WAYS, first + found, -1), mask=here)


@launches
def triton_cache_probe(tags: Tensor, ways: int, rows: Tensor) -> Tensor:
    """`cache_probe` without a check of the rows; contiguous."""
    out = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    if len(rows):
        padded = int(triton.next_power_of_2(ways))
        block = max(1, VALUES // padded)
        cache_probe_kernel[(triton.cdiv(len(rows), block),)](
            *(tags, rows, out, len(rows), len(tags) // ways, ways), BLOCK=block, WAYS=padded
        )
    return out
