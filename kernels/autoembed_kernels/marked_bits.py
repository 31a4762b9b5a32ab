"""Marks of n places as bits, with a directory of counts by which the number of a marked place is found.

    bytes of n marks = 4 * ceil(n / 512) + ceil(n / 8)
    count[b]         = marks before place 512 b                 u32 little-endian, first
    mark of place i  = bit i mod 8 of byte i div 8              behind the counts; bits from n on are zero
    rank of place i  = count[i div 512] + marks of its block before i

Jacobson, "Space-efficient static trees and graphs", FOCS 1989, with one level of counts.
"""

import torch
from torch import Tensor

BLOCK = 512  # places for which one count is kept
AT_ONCE = 1 << 13  # look-ups, whose blocks take 4 MB in 64-bit numbers
_COUNT_BYTES = 4
_BLOCK_BYTES = BLOCK // 8


def marks_bytes(places: int) -> int:
    """Bytes of the marks of so many places, with their counts."""
    return _COUNT_BYTES * -(-places // BLOCK) + -(-places // 8)


def pack_marks(marks: Tensor) -> Tensor:
    """marks (n,) bool -> (marks_bytes(n),) uint8. Raises ValueError from 2^32 marks on."""
    blocks = -(-len(marks) // BLOCK)
    padded = marks.new_zeros(blocks * BLOCK)
    padded[: len(marks)] = marks
    sums = padded.view(blocks, BLOCK).sum(1).cumsum(0)
    if len(sums) and int(sums[-1]) >= 2**32:
        raise ValueError(f"{int(sums[-1])} marks exceed the format's limit of {2**32 - 1}")
    counts = torch.cat([sums[:0], sums.new_zeros(1), sums])[:blocks]
    count_bytes = torch.stack([counts >> (8 * i) & 255 for i in range(_COUNT_BYTES)], dim=1)
    bits = padded.view(-1, 8).to(torch.uint8) << torch.arange(8, dtype=torch.uint8, device=marks.device)
    packed = bits.sum(1, dtype=torch.uint8)[: -(-len(marks) // 8)]
    return torch.cat([count_bytes.to(torch.uint8).flatten(), packed])


def unpack_marks(packed: Tensor, places: int) -> Tensor:
    """(marks_bytes(places),) uint8 -> marks (places,) bool, from the bits alone."""
    bits = packed[_COUNT_BYTES * -(-places // BLOCK) :].unsqueeze(1)
    return (bits >> torch.arange(8, dtype=torch.uint8, device=packed.device) & 1).flatten()[:places].bool()


def find_marked(packed: Tensor, start: Tensor, places: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Look-ups (N,) in several packed marks -> whether each place is marked (N,) bool, its rank (N,) int64.

    `packed` uint8 holds the marks behind one another; start (N,) is the byte where the marks of look-up n
    begin, places (N,) their number and place (N,) the one looked up, all int64.
    """
    if len(place) > AT_ONCE and not torch.compiler.is_compiling():
        # a block's 64 bytes of all look-ups of a large batch would take more memory than small tables do
        parts = zip(*(torch.split(column, AT_ONCE) for column in (start, places, place)), strict=True)
        marked, ranks = zip(*(find_marked(packed, *part) for part in parts), strict=True)
        return torch.cat(marked), torch.cat(ranks)
    bits = start + _COUNT_BYTES * ((places + BLOCK - 1) // BLOCK)
    byte = bits + place // 8
    own = packed[byte].long()
    count_at = start + _COUNT_BYTES * (place // BLOCK)
    rank = sum((packed[count_at + i].long() << (8 * i) for i in range(_COUNT_BYTES)), torch.zeros_like(place))
    ones = _ones(packed.device)
    rank = rank + ones[own & ((1 << place % 8) - 1)]
    block = bits + place // BLOCK * _BLOCK_BYTES
    at = block.unsqueeze(1) + torch.arange(_BLOCK_BYTES, device=packed.device)  # (N, 64)
    before = at < byte.unsqueeze(1)
    counted = ones[packed[torch.where(before, at, byte.unsqueeze(1))].long()]
    return (own >> place % 8 & 1).bool(), rank + (counted * before).sum(1)


def _ones(device: torch.device) -> Tensor:
    """The number of ones in every byte, (256,) int64."""
    return (torch.arange(256, device=device).unsqueeze(1) >> torch.arange(8, device=device) & 1).sum(1)
