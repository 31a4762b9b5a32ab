"""Random words by counter: Philox4x32-10, the same numbers on every device and for any order of the calls.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. Ten rounds turn a counter
(c0, c1, c2, c3) and a key (k0, k1) of 32-bit words into four random words. With multipliers M0, M1 a round is

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0))

and between rounds k0 += W0, k1 += W1. Words are kept in int64, which torch can multiply on every device; the
high half of a 64-bit product is put together from two products of 32 by 16 bits. Half a word is enough for a
cast by chance (`row_chances`).
"""

import torch
from torch import Tensor

from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.operators import operators

_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: int) -> tuple[Tensor, ...]:
    """Four tensors of words, int64 in [0, 2^32), that broadcast; key < 2^64 -> four tensors of words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key & _WORD, key >> 32 & _WORD
    for _ in range(10):
        high0, low0 = _product(_M0, c0)
        high1, low1 = _product(_M1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
    return c0, c1, c2, c3


def row_chances(seed: int, step: int, rows: Tensor, columns: int) -> Tensor:
    """16 random bits for every column of every row (N,) int64 -> (N, columns) int64 in [0, 2^16).

    The key is `seed`; the counter holds column div 8, the two halves of the row, and the step. Columns 2 i
    and 2 i + 1 get the lower and the upper half of the i-th word.
    """
    if torch.compiler.is_compiling():
        # operators take 64-bit integers with a sign
        traced: Tensor = operators().row_chances((seed + 2**63) % 2**64 - 2**63, step, rows, columns)
        return traced
    return eager_row_chances(seed, step, rows, columns)


def eager_row_chances(seed: int, step: int, rows: Tensor, columns: int) -> Tensor:
    """`row_chances` itself."""
    if triton_for(rows):
        from autoembed_kernels.gpu.philox import triton_row_chances

        return triton_row_chances(seed, step, rows, columns)
    return torch_row_chances(seed, step, rows, columns)


def torch_row_chances(seed: int, step: int, rows: Tensor, columns: int) -> Tensor:
    """`row_chances` in torch, on any device."""
    block = torch.arange(-(-columns // 8), device=rows.device)  # (K,)
    row = rows.unsqueeze(1)
    steps = torch.full((1, 1), step & _WORD, dtype=torch.int64, device=rows.device)
    words = philox((block.unsqueeze(0), row & _WORD, row >> 32, steps), seed)
    halves = [half for word in words for half in (word & 0xFFFF, word >> 16)]
    return torch.stack(halves, dim=2).flatten(1)[:, :columns]


def reference(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """One block in Python's exact integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (
            product1 >> 32 ^ c1 ^ k0,
            product1 & _WORD,
            product0 >> 32 ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
    return c0, c1, c2, c3


def _product(multiplier: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of multiplier * words; no step exceeds 2^49."""
    low = multiplier * (words & 0xFFFF)
    middle = multiplier * (words >> 16) + (low >> 16)
    return middle >> 16, (middle & 0xFFFF) << 16 | low & 0xFFFF
