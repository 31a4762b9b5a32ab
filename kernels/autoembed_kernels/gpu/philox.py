"""Philox4x32-10 on a GPU: the numbers of `autoembed_kernels.philox`, bit for bit."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import filled, launches

VALUES = 1024  # numbers of a program
LEAST_COLUMNS = 4  # that share a block of Philox


@triton.jit
def half_block(c0, c1, c2, c3, k0, k1, is_first):
    """Four counters and two keys of uint32 -> the first two of the four words, or the last two, uint32."""
    for _ in tl.static_range(9):
        product0 = c0.to(tl.uint64) * 0xD2511F53
        product1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = product1.to(tl.uint32)
        c3 = product0.to(tl.uint32)
        k0 = (k0.to(tl.uint64) + 0x9E3779B9).to(tl.uint32)
        k1 = (k1.to(tl.uint64) + 0xBB67AE85).to(tl.uint32)
    # the last round's halves are two products, of which one is asked for
    multiplier = tl.where(is_first, 0xCD9E8D57, 0xD2511F53).to(tl.uint64)
    product = tl.where(is_first, c2, c0).to(tl.uint64) * multiplier
    high = (product >> 32).to(tl.uint32) ^ tl.where(is_first, c1 ^ k0, c3 ^ k1)
    return high, product.to(tl.uint32)


@triton.jit
def chances_of_rows(seed, step, row, COLUMNS: tl.constexpr):
    """seed and step int64 scalars, row [R] int64 -> `row_chances` [R, COLUMNS] uint32.

    COLUMNS is a power of two from 4 on. The block of eight columns is made for either four of them: one that
    is shared would have to pass between threads that hold four columns each.
    """
    four = tl.arange(0, COLUMNS // 4)[None, :]  # [1, COLUMNS / 4]
    low, high = row.to(tl.uint32)[:, None], (row >> 32).to(tl.uint32)[:, None]
    # step and keys are numbers of the program, not of a thread
    k0, k1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    block = (four // 2).to(tl.uint32)
    first, second = half_block(block, low, high, step.to(tl.uint32), k0, k1, four % 2 == 0)
    words = tl.interleave(first, second)
    return tl.interleave(words & 0xFFFF, words >> 16)


@triton.jit
def row_chances_kernel(seed_and_step, rows, out, count, width, BLOCK: tl.constexpr, COLUMNS: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    row = tl.load(rows + place, mask=here, other=0).to(tl.int64)
    chances = chances_of_rows(tl.load(seed_and_step), tl.load(seed_and_step + 1), row, COLUMNS)
    column = tl.arange(0, COLUMNS)
    tl.store(out + place[:, None] * width + column[None, :], chances.to(tl.int64),
             mask=here[:, None] & (column[None, :] < width))  # fmt: skip


def seed_and_step(seed: int, step: int, device: torch.device) -> Tensor:
    """(2,) int64 as the kernels read them: in memory, where they can change between plays of a CUDA graph."""
    return filled([(seed + 2**63) % 2**64 - 2**63, step], torch.int64, device)


def padded_columns(width: int) -> int:
    """The power of two that holds `width` columns, whole fours of them."""
    return max(LEAST_COLUMNS, int(triton.next_power_of_2(width)))


@launches
def triton_row_chances(seed: int, step: int, rows: Tensor, columns: int) -> Tensor:
    """`row_chances`: rows (N,) -> (N, columns) int64."""
    out = torch.empty(len(rows), columns, dtype=torch.int64, device=rows.device)
    padded = padded_columns(columns)
    block = max(1, VALUES // padded)
    if out.numel():
        row_chances_kernel[(triton.cdiv(len(rows), block),)](
            *(seed_and_step(seed, step, rows.device), rows.contiguous(), out, len(rows), columns),
            BLOCK=block,
            COLUMNS=padded,
        )
    return out
