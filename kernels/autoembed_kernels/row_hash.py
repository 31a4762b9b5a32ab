"""Hash rows of a field to buckets: the same on every device, and in the trainer and the packed reader.

    bucket = (mix(row + (salt + 1) * GOLDEN) >> 1) mod buckets

`mix` is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), in 64-bit arithmetic that wraps around. The shift by one clears the sign, so
that the remainder is the unsigned one. The bias of the remainder is below buckets / 2^63.
"""

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, as a signed integer
FIRST = 0xBF58476D1CE4E5B9 - 2**64
SECOND = 0x94D049BB133111EB - 2**64


def row_hash(rows: Tensor, salt: int | Tensor, buckets: int | Tensor) -> Tensor:
    """rows (N,) of whole numbers >= 0 -> buckets (N,) int64 in [0, buckets).

    `salt` tells tables apart: the field's index. `salt` and `buckets` >= 1 are numbers or (N,) int64.
    Rows are counted from the start of the field, not of a segment.
    """
    if isinstance(salt, int):
        salt = torch.tensor(salt, dtype=torch.int64, device=rows.device)
    mixed = rows.long() + (salt + 1) * GOLDEN
    mixed = (mixed ^ _shift(mixed, 30)) * FIRST
    mixed = (mixed ^ _shift(mixed, 27)) * SECOND
    mixed = mixed ^ _shift(mixed, 31)
    return _shift(mixed, 1) % buckets


def reference(row: int, salt: int, buckets: int) -> int:
    """The same for one row, in Python's exact integers."""
    word = 2**64 - 1
    mixed = (row + (salt + 1) * (GOLDEN & word)) & word
    mixed = ((mixed ^ (mixed >> 30)) * (FIRST & word)) & word
    mixed = ((mixed ^ (mixed >> 27)) * (SECOND & word)) & word
    return ((mixed ^ (mixed >> 31)) >> 1) % buckets


def _shift(words: Tensor, bits: int) -> Tensor:
    """Unsigned shift to the right of 64-bit words kept as int64."""
    shifted: Tensor = (words >> bits) & (2 ** (64 - bits) - 1)
    return shifted
