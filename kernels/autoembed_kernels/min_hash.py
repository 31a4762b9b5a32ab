"""Min-hash signatures of rows: ids whose sets overlap have many keys in common.

Broder, "On the resemblance and containment of documents", SEQUENCES 1997; as 4-bit keys in a word of 64 bits,
Desai et al., "Semantically constrained memory allocation (SCMA) for embedding in efficient recommendation
systems" (LMA), arXiv:2103.06124. Every element of a row's set has KEYS hashes below EMPTY:

    minimum[k, row] = min over the elements e of the row's set of row_hash(e, k, EMPTY)
    key[k, row]     = row_hash(minimum[k, row], KEYS + k, 16), 4 bits
    signature[row]  = sum over k of key[k, row] * 16^k, a word of 64 bits kept as int64

Two rows have equal minima k with probability J, the Jaccard similarity of their sets, and equal keys with
probability J + (1 - J) / 16. Rows with empty sets get keys by a hash of the row.
"""

import torch
from torch import Tensor

from autoembed_kernels.row_hash import row_hash

KEYS = 16
KEY_BITS = 4
EMPTY = 1 << 32  # the minimum of no element; hashes of elements lie below


def element_hash(elements: Tensor, key: int) -> Tensor:
    """elements int64 >= 0 of any shape -> their hashes for this key, int64 in [0, EMPTY)."""
    return row_hash(elements, key, EMPTY)


def lower_minima(minima: Tensor, rows: Tensor, hashes: Tensor) -> None:
    """In place: minima (R,) int64 of one key, lowered at rows (N,) by hashes (N,) int64; rows may repeat."""
    minima.scatter_reduce_(0, rows, hashes, "amin")


def keys_of(minima: Tensor, rows: Tensor, key: int) -> Tensor:
    """minima (R,) of one key and the rows' numbers (R,), int64 -> keys (R,) int64 in [0, 16)."""
    keys = row_hash(minima, KEYS + key, 1 << KEY_BITS)
    return torch.where(minima < EMPTY, keys, row_hash(rows, 2 * KEYS + key, 1 << KEY_BITS))


def with_key(signatures: Tensor, key: int, keys: Tensor) -> Tensor:
    """signatures (R,) int64 whose key of that number is 0 -> (R,) with `keys` (R,) there."""
    return signatures | keys << (KEY_BITS * key)


def reference(sets: list[set[int]]) -> list[int]:
    """Signatures of rows 0, 1, ... with these sets, as unsigned words, in Python's exact integers."""
    from autoembed_kernels.row_hash import reference as exact

    words = []
    for row, elements in enumerate(sets):
        word = 0
        for key in range(KEYS):
            if elements:
                least = min(exact(element, key, EMPTY) for element in elements)
                part = exact(least, KEYS + key, 16)
            else:
                part = exact(row, 2 * KEYS + key, 16)
            word |= part << (KEY_BITS * key)
        words.append(word)
    return words
