"""Rows of b-bit codes <-> bytes.

Layout: a little-endian bit stream per row. Code j of a row takes bits [j * b, (j + 1) * b), bit i of the
stream is bit i % 8 of byte i // 8, every row starts on a byte, and the bits left over at a row's end are 0.

    byte[i] = sum over j, k of bit k of code[j] at stream bit j * b + k, for stream bits 8 i .. 8 i + 7

Eight codes take exactly b bytes, so the fast path moves eight codes at a time through one 64-bit word.
"""

import sys
from ctypes import CDLL

import torch
from torch import Tensor

from autoembed_kernels.checks import check_dims
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, native_for, threads
from autoembed_kernels.operators import operators

BYTES = tuple(range(8))


def packed_row_bytes(dim: int, bits: int) -> int:
    """Bytes of one row of `dim` codes: ceil(dim * bits / 8)."""
    return -(-dim * bits // 8)


def reference_pack_bits(codes: Tensor, bits: int) -> Tensor:
    """As `pack_bits`, bit by bit."""
    rows, dim = codes.shape
    packed = torch.zeros(rows, packed_row_bytes(dim, bits), dtype=torch.uint8)
    for row in range(rows):
        for j in range(dim):
            for k in range(bits):
                place = j * bits + k
                packed[row, place // 8] |= (int(codes[row, j]) >> k & 1) << place % 8
    return packed


def reference_unpack_bits(packed: Tensor, dim: int, bits: int) -> Tensor:
    """As `unpack_bits`, bit by bit."""
    codes = torch.zeros(len(packed), dim, dtype=torch.uint8)
    for row in range(len(packed)):
        for j in range(dim):
            for k in range(bits):
                place = j * bits + k
                codes[row, j] |= (int(packed[row, place // 8]) >> place % 8 & 1) << k
    return codes


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """codes (R, D) integers in 0 .. 2^bits - 1 -> (R, ceil(D * bits / 8)) uint8. bits in 1..8.

    Codes outside the range give a wrong row, not an error: the caller clips. Raises ValueError for other
    bits and shapes.
    """
    if torch.compiler.is_compiling():
        traced: Tensor = operators().pack_bits(codes, bits)
        return traced
    return eager_pack_bits(codes, bits)


def eager_pack_bits(codes: Tensor, bits: int) -> Tensor:
    """`pack_bits` itself."""
    _check_bits(bits)
    check_dims("codes", codes, "R, D")
    if triton_for(codes):
        from autoembed_kernels.gpu.bitpack import triton_pack_bits

        return triton_pack_bits(codes, bits)
    native = _native(codes) if bits < 8 else None
    return torch_pack_bits(codes, bits) if native is None else native_pack_bits(native, codes, bits)


def native_pack_bits(library: CDLL, codes: Tensor, bits: int) -> Tensor:
    """`pack_bits`, native/bitpack.cpp."""
    rows, dim = codes.shape
    codes = codes.to(torch.uint8).contiguous()
    packed = codes.new_empty(rows, packed_row_bytes(dim, bits))
    library.autoembed_pack_bits(address(codes), rows, dim, bits, address(packed), threads())
    return packed


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"codes have 1 to 8 bits, got {bits}")


def _native(given: Tensor) -> CDLL | None:
    """The library, for whole numbers on the CPU of a machine that keeps the low byte of a word first."""
    on_cpu = given.device.type == "cpu" and not given.is_floating_point()
    return native_for() if on_cpu and sys.byteorder == "little" else None


def torch_pack_bits(codes: Tensor, bits: int) -> Tensor:
    """`pack_bits` in torch, on any device."""
    rows, dim = codes.shape
    if bits == 8:
        return codes.to(torch.uint8)
    padded = torch.nn.functional.pad(codes, (0, -dim % 8)).view(rows, -(-dim // 8), 8)
    words = torch.zeros(padded.shape[:2], dtype=torch.int64, device=codes.device)
    for k in BYTES:
        words |= padded[:, :, k].to(torch.int64) << (k * bits)
    packed = torch.stack([(words >> (8 * i) & 255).to(torch.uint8) for i in range(bits)], dim=2)
    return packed.flatten(1)[:, : packed_row_bytes(dim, bits)].contiguous()


def unpack_bits(packed: Tensor, dim: int, bits: int) -> Tensor:
    """packed (R, ceil(D * bits / 8)) uint8 -> codes (R, D) uint8. bits in 1..8.

    Bytes of another dtype are read as such, and those behind the last code are not. Raises ValueError for
    other bits and where rows have too few bytes.
    """
    if torch.compiler.is_compiling():
        traced: Tensor = operators().unpack_bits(packed, dim, bits)
        return traced
    return eager_unpack_bits(packed, dim, bits)


def eager_unpack_bits(packed: Tensor, dim: int, bits: int) -> Tensor:
    """`unpack_bits` itself."""
    _check_bits(bits)
    if packed.dim() != 2 or packed.shape[1] < packed_row_bytes(dim, bits):
        raise ValueError(
            f"packed has shape {tuple(packed.shape)}, expected (R, {packed_row_bytes(dim, bits)}): "
            f"the bytes of {dim} codes of {bits} bits"
        )
    packed = packed.to(torch.uint8)
    if triton_for(packed):
        from autoembed_kernels.gpu.bitpack import triton_unpack_bits

        return triton_unpack_bits(packed, dim, bits)
    native = _native(packed) if bits < 8 and packed.shape[1] == packed_row_bytes(dim, bits) else None
    return (
        torch_unpack_bits(packed, dim, bits)
        if native is None
        else native_unpack_bits(native, packed, dim, bits)
    )


def native_unpack_bits(library: CDLL, packed: Tensor, dim: int, bits: int) -> Tensor:
    """`unpack_bits`, native/bitpack.cpp."""
    packed = packed.contiguous()
    codes = packed.new_empty(len(packed), dim)
    library.autoembed_unpack_bits(address(packed), len(packed), dim, bits, address(codes), threads())
    return codes


def torch_unpack_bits(packed: Tensor, dim: int, bits: int) -> Tensor:
    """`unpack_bits` in torch, on any device."""
    rows, width = packed.shape
    if bits == 8:
        return packed[:, :dim]
    padded = torch.nn.functional.pad(packed, (0, -width % bits)).view(rows, -(-width // bits), bits)
    words = torch.zeros(padded.shape[:2], dtype=torch.int64, device=packed.device)
    for i in range(bits):
        words |= padded[:, :, i].to(torch.int64) << (8 * i)
    mask = (1 << bits) - 1
    codes = torch.stack([(words >> (k * bits) & mask).to(torch.uint8) for k in BYTES], dim=2)
    return codes.flatten(1)[:, :dim].contiguous()
