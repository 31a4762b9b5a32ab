"""Codes to bytes and back on a GPU: the bytes of `autoembed_kernels.bitpack`, a value a thread."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.bitpack import packed_row_bytes
from autoembed_kernels.gpu.present import launches

BLOCK = 1024  # values of a program


@triton.jit
def pack_bits_kernel(codes, out, count, width, dim, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """codes (R, dim) -> out (R, width) bytes, `count` in all."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    row = place // width
    bit = (place % width) * 8  # of the row's stream, where the byte begins
    first = bit // BITS
    byte = tl.zeros([BLOCK], tl.int32)
    for t in tl.static_range((6 + BITS) // BITS + 1):  # codes that may touch a byte
        j = first + t
        code = tl.load(codes + row * dim + j, mask=here & (j < dim), other=0).to(tl.int32)
        up = (j * BITS - bit).to(tl.int32)
        # a code that begins past the byte is shifted out of it: up is then from 8 on, at most 15
        byte |= tl.where(up >= 0, code << tl.maximum(up, 0), code >> tl.maximum(-up, 0))
    tl.store(out + place, (byte & 255).to(tl.uint8), mask=here)


@triton.jit
def unpack_bits_kernel(packed, out, count, width, dim, BITS: tl.constexpr, BLOCK: tl.constexpr):
    """packed (R, width) -> out (R, dim) codes, `count` in all."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    here = place < count
    bit = (place % dim) * BITS
    byte = bit >> 3
    start = packed + (place // dim) * width
    low = tl.load(start + byte, mask=here, other=0).to(tl.int32)
    high = tl.load(start + byte + 1, mask=here & (byte + 1 < width), other=0).to(tl.int32)
    code = (low | (high << 8)) >> (bit & 7).to(tl.int32)
    tl.store(out + place, (code & ((1 << BITS) - 1)).to(tl.uint8), mask=here)


@launches
def triton_pack_bits(codes: Tensor, bits: int) -> Tensor:
    """`pack_bits`: codes (R, D) -> (R, ceil(D * bits / 8)) uint8."""
    rows, dim = codes.shape
    out = torch.empty(rows, packed_row_bytes(dim, bits), dtype=torch.uint8, device=codes.device)
    if out.numel():
        pack_bits_kernel[(triton.cdiv(out.numel(), BLOCK),)](
            codes.contiguous(), out, out.numel(), out.shape[1], dim, BITS=bits, BLOCK=BLOCK
        )
    return out


@launches
def triton_unpack_bits(packed: Tensor, dim: int, bits: int) -> Tensor:
    """`unpack_bits`: packed (R, ceil(D * bits / 8)) uint8 -> codes (R, D) uint8."""
    out = torch.empty(len(packed), dim, dtype=torch.uint8, device=packed.device)
    if out.numel():
        unpack_bits_kernel[(triton.cdiv(out.numel(), BLOCK),)](
            packed.contiguous(), out, out.numel(), packed.shape[1], dim, BITS=bits, BLOCK=BLOCK
        )
    return out
