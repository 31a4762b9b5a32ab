"""Packed marks checked where they lie, a piece at a time: a file takes no memory by what it declares.

A list of a few marks of 2^35 places is 2 MB; a truth value for each place would be 32 GB. How the bytes lie
is in `autoembed_kernels.listed_marks` and `autoembed_kernels.marked_bits`.
"""

import numpy as np
from torch import Tensor

from autoembed_kernels.marked_bits import BLOCK

_PIECE = 1 << 18  # marks of a list, or bytes of bits, that are looked at together
_COUNT = np.dtype("<u4")
_BLOCK_BYTES = BLOCK // 8
_ONES = np.array([number.bit_count() for number in range(256)], dtype=np.uint8)


def is_list_of_marks(index: Tensor, places: int, marked: int) -> bool:
    """Whether index (listed_bytes(places, marked),) uint8 is what `pack_listed` makes of some `marked` marks.

    It is where the counts rise from 0 to at most `marked`, the marks of a block ascend, and the last one is
    a place.
    """
    narrow = len(index) == _COUNT.itemsize * -(-places // 2**8) + marked
    block = 2**8 if narrow else 2**16
    blocks = -(-places // block)
    counts = index[: _COUNT.itemsize * blocks].numpy().view(_COUNT).astype(np.uint32)
    low = index[_COUNT.itemsize * blocks :].numpy().view("<u1" if narrow else "<u2")  # (marked,)
    if counts[0] or counts[-1] > marked or (counts[1:] < counts[:-1]).any():
        return False
    for start in range(1, marked, _PIECE):
        piece = low[start - 1 : start + _PIECE]
        # a mark that is not above the one before must be the first of its block
        falls = (start + np.flatnonzero(piece[1:] <= piece[:-1])).astype(np.uint32)
        at = np.searchsorted(counts, falls)
        if (counts[np.minimum(at, blocks - 1)] != falls).any():
            return False
    return bool(counts[-1] == marked or low[-1] < places - (blocks - 1) * block)


def count_marks(index: Tensor, places: int) -> int | None:
    """Marks in index (marks_bytes(places),) uint8; None where it is not what `pack_marks` makes of any."""
    blocks = -(-places // BLOCK)
    counts = index[: _COUNT.itemsize * blocks].numpy().view(_COUNT)
    bits = index[_COUNT.itemsize * blocks :].numpy()  # (ceil(places / 8),)
    if places % 8 and bits[-1] >> places % 8:
        return None
    before = 0
    step = _PIECE // _BLOCK_BYTES
    for first in range(0, blocks, step):
        ones = _ONES[bits[first * _BLOCK_BYTES : (first + step) * _BLOCK_BYTES]]
        own = np.add.reduceat(ones, np.arange(0, len(ones), _BLOCK_BYTES), dtype=np.int64)
        ends = before + own.cumsum()
        if (counts[first : first + step] != ends - own).any():
            return None
        before = int(ends[-1])
    return before
