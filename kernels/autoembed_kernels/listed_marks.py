"""Marks of few of n places as a list of them: fewer bytes than bits where up to one of 9 is marked.

    bytes of m marks = 4 * ceil(n / 2^w) + m * w / 8       with w = 8 or 16, which takes fewer, 8 of equals
    count[b]         = marks before place 2^w b            u32 little-endian, first
    mark number i    = its place mod 2^w                   w bits little-endian, in order, behind the counts
    rank of place p  = first mark of p's block that does not lie before p, found by halving

`marked_bits` does the same with a bit for every place.
"""

from typing import TypeVar

import torch
from torch import Tensor

Number = TypeVar("Number", int, Tensor)

_COUNT_BYTES = 4
_HALVINGS = 17  # of the 2^16 marks that a block may hold


def listed_bytes(places: int, marked: int) -> int:
    """Bytes of the list of so many marked places."""
    return min(_bytes(places, marked, 8), _bytes(places, marked, 16))


def pack_listed(marks: Tensor) -> Tensor:
    """marks (n,) bool -> (listed_bytes(n, marked),) uint8. Raises ValueError from 2^32 marks on."""
    found = marks.nonzero().squeeze(1)
    if len(found) >= 2**32:
        raise ValueError(f"{len(found)} marks exceed the format's limit of {2**32 - 1}")
    width = _width(len(marks), len(found))
    firsts = torch.arange(-(-len(marks) // 2**width), device=marks.device) << width
    counts = torch.searchsorted(found, firsts)
    return torch.cat([_little_endian(counts, _COUNT_BYTES), _little_endian(found, width // 8)])


def unpack_listed(packed: Tensor, places: int, marked: int) -> Tensor:
    """(listed_bytes(places, marked),) uint8 -> marks (places,) bool, without those behind the last place."""
    width = _width(places, marked)
    blocks = -(-places // 2**width)
    counts = _numbers(packed[: _COUNT_BYTES * blocks], _COUNT_BYTES)
    low = _numbers(packed[_COUNT_BYTES * blocks :], width // 8)
    block = torch.searchsorted(counts, torch.arange(marked, device=packed.device), right=True) - 1
    place = (block.clamp(min=0) << width) + low
    marks = torch.zeros(places, dtype=torch.bool, device=packed.device)
    marks[place[place < places]] = True
    return marks


def find_listed(
    packed: Tensor, start: Tensor, places: Tensor, marked: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    """Look-ups (N,) in several lists -> whether each place is marked (N,) bool, its rank (N,) int64.

    `packed` uint8 holds the lists behind one another; start (N,) is the byte where the list of look-up n
    begins, places and marked (N,) what it was made of, and place (N,) the one looked up, all int64.
    """
    narrow = _bytes(places, marked, 8) <= _bytes(places, marked, 16)
    width = torch.where(narrow, 8, 16)
    blocks = (places + (1 << width) - 1) >> width
    block = place >> width
    low = place & (1 << width) - 1
    listed = start + _COUNT_BYTES * blocks

    def count(of: Tensor) -> Tensor:
        at = start + _COUNT_BYTES * of
        return sum((_byte(packed, at + i) << (8 * i) for i in range(_COUNT_BYTES)), torch.zeros_like(place))

    def mark(number: Tensor) -> Tensor:
        at = listed + number * (width >> 3)
        return _byte(packed, at) + torch.where(narrow, 0, _byte(packed, at + 1) << 8)

    first = count(block)
    end = torch.where(block + 1 < blocks, count(block + 1), marked)
    last = end
    for _ in range(_HALVINGS):
        middle = (first + last) >> 1
        is_before = (first < last) & (mark(middle) < low)
        last = torch.where(is_before, last, torch.minimum(middle, last))
        first = torch.where(is_before, middle + 1, first)
    return (first < end) & (mark(first) == low), first


def _bytes(places: Number, marked: Number, width: int) -> Number:
    total: Number = _COUNT_BYTES * -(-places // 2**width) + marked * width // 8
    return total


def _width(places: int, marked: int) -> int:
    return 8 if _bytes(places, marked, 8) <= _bytes(places, marked, 16) else 16


def _byte(packed: Tensor, at: Tensor) -> Tensor:
    """int64; whatever lies beyond the end is not used."""
    return packed[at.clamp(max=len(packed) - 1)].long()


def _little_endian(numbers: Tensor, width: int) -> Tensor:
    """The lowest `width` bytes of every number, one number behind the other."""
    return torch.stack([numbers >> (8 * i) & 255 for i in range(width)], dim=1).to(torch.uint8).flatten()


def _numbers(packed: Tensor, width: int) -> Tensor:
    words = packed.view(-1, width).long()
    return sum((words[:, i] << (8 * i) for i in range(width)), torch.zeros_like(words[:, 0]))
