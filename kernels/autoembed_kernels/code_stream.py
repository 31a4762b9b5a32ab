"""Codes of b bits in one stream, read at any place: which row of a codebook an id reads.

    bit p b + k of the stream, counted from byte `at`, is bit k of code p          b in 1..8

Bit i of a stream is bit i % 8 of byte i // 8, as `bitpack` packs a row. A code lies in two bytes at most, so
a stream needs a byte behind its last code.
"""

import torch
from torch import Tensor

PAD = 1  # bytes behind the last code that are read with it


def code_bits(rows: int) -> int:
    """The bits of a code that names one of `rows` rows, 1..256 of them; at least 1."""
    return max(1, (rows - 1).bit_length())


def code_bytes(count: int, rows: int) -> int:
    """Bytes of the stream of `count` codes that name one of `rows` rows."""
    return -(-count * code_bits(rows) // 8)


def read_codes(stream: Tensor, at: Tensor, bits: Tensor, place: Tensor) -> Tensor:
    """stream (bytes + PAD,) uint8; at, bits, place (N,) int64 -> the codes (N,) int64 at these places.

    Where `bits` is 0 the code is 0, whatever the place.
    """
    bit = place * bits
    byte = torch.where(bits > 0, at + (bit >> 3), 0)
    word = stream[byte].long() | stream[byte + 1].long() << 8
    return word >> (bit & 7) & (1 << bits) - 1


def reference(stream: bytes, at: int, bits: int, place: int) -> int:
    """`read_codes` of one place, bit by bit."""
    code = 0
    for k in range(bits):
        bit = 8 * at + place * bits + k
        code |= (stream[bit // 8] >> bit % 8 & 1) << k
    return code
