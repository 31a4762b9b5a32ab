"""Look up rows of packed tables in which every segment has its own width, dimension and scale.

Look-up n reads stored row row[n] of segment segment[n]. The row lies at byte

    at = base[segment] + row * row_bytes[segment]

of the payload: `front` bytes of scale and bias, then the values, then padding.

    integer codes   c (b bits, see bitpack.py):   value[j] = (c[j] + shift) * scale + offset[j]
    fp16, bf16, fp32, little-endian:              value[j] as it is

scale is the segment's, or the fp16 number at the row's front (`front` >= 2); with `front` = 4 the fp16 bias
behind it takes the place of the offset. Columns from the segment's dimension on read zero, and so do
segments of dimension 0, which store nothing.
"""

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

INTEGER, FP16, BF16, FP32 = range(4)
SEGMENT_TENSORS = ("base", "row_bytes", "dim", "bits", "kind", "front", "shift", "scale", "offset", "offsets")
_FLOAT_DTYPES = {FP16: torch.float16, BF16: torch.bfloat16, FP32: torch.float32}


@dataclass(frozen=True)
class PackedSegments:
    """Per segment (S,): where its rows lie and how to read them.

    base, row_bytes, dim, bits int64 (bits 1..8 of integer codes, else 8); kind uint8 (INTEGER, FP16, BF16,
    FP32); front int64 (0, 2 or 4); shift, scale float32; offset (S,) int64 rows of `offsets` (O, W) float32.
    `kinds` are the kinds that occur, `width` W is the number of columns to return.
    """

    base: Tensor
    row_bytes: Tensor
    dim: Tensor
    bits: Tensor
    kind: Tensor
    front: Tensor
    shift: Tensor
    scale: Tensor
    offset: Tensor
    offsets: Tensor
    kinds: tuple[int, ...]
    row_scales: bool
    row_biases: bool
    width: int


def reference_gather_packed(
    payload: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor
) -> Tensor:
    """As `gather_packed`, look-up by look-up in Python floats; returns float64."""
    data = bytes(payload.tolist())
    values = torch.zeros(len(row), segments.width, dtype=torch.float64)
    for n, (s, r) in enumerate(zip(segment.tolist(), row.tolist(), strict=True)):
        at = int(segments.base[s]) + r * int(segments.row_bytes[s])
        dim, bits, front = (int(x[s]) for x in (segments.dim, segments.bits, segments.front))
        kind = int(segments.kind[s])
        scale, bias = float(segments.scale[s]), 0.0
        if dim and front >= 2:
            scale = struct.unpack_from("<e", data, at)[0]
        if dim and front == 4:
            bias = struct.unpack_from("<e", data, at + 2)[0]
        stream = int.from_bytes(data[at + front : at + int(segments.row_bytes[s])], "little")
        for j in range(dim):
            if kind == INTEGER:
                code = stream >> (j * bits) & ((1 << bits) - 1)
                offset = bias if front == 4 else float(segments.offsets[int(segments.offset[s]), j])
                values[n, j] = (code + float(segments.shift[s])) * scale + offset
            elif kind == FP16:
                values[n, j] = struct.unpack_from("<e", data, at + 2 * j)[0]
            elif kind == BF16:
                values[n, j] = struct.unpack("<f", b"\0\0" + data[at + 2 * j : at + 2 * j + 2])[0]
            else:
                values[n, j] = struct.unpack_from("<f", data, at + 4 * j)[0]
    return values


def gather_packed(payload: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor) -> Tensor:
    """payload (P,) uint8, segment (N,) int64, row (N,) int64 stored rows -> (N, W) float32.

    One pass for all integer widths and one for each float type that occurs. Equals the reference to
    float32 rounding: 3 * 2^-24 * (|c + shift| * |scale| + |offset|).
    """
    at = segments.base[segment] + row * segments.row_bytes[segment]  # (N,)
    if segments.kinds == ():
        return torch.zeros(len(row), segments.width, device=row.device)
    if len(segments.kinds) == 1:
        values = _gather_kind(segments.kinds[0], payload, segments, segment, at)
    else:
        kind = segments.kind[segment]
        values = torch.empty(len(row), segments.width, device=row.device)
        for one in segments.kinds:
            chosen = (kind == one).nonzero().squeeze(1)
            values[chosen] = _gather_kind(one, payload, segments, segment[chosen], at[chosen])
    columns = torch.arange(segments.width, device=row.device)
    # a masked-out column may hold bytes of the next row that read as NaN: select, never multiply
    return torch.where(columns < segments.dim[segment].unsqueeze(1), values, 0.0)


def _gather_kind(kind: int, payload: Tensor, segments: PackedSegments, segment: Tensor, at: Tensor) -> Tensor:
    if kind != INTEGER:
        return _read(payload, at, segments.width, _FLOAT_DTYPES[kind]).float()
    bits = segments.bits[segment].view(-1, 1, 1)
    code_at = at + segments.front[segment]
    # eight codes take `bits` bytes: read the 8 bytes that start there as one little-endian word
    words = -(-segments.width // 8)
    word = torch.arange(words, device=at.device).view(1, -1, 1)
    byte = torch.arange(8, device=at.device)
    address = (code_at.view(-1, 1, 1) + word * bits + byte).clamp(max=len(payload) - 1)
    stream = payload[address].view(torch.int64)  # (N, words, 1)
    codes = (stream >> (byte * bits)) & ((1 << bits) - 1)  # (N, words, 8)
    codes = codes.view(len(at), words * 8)[:, : segments.width]
    scale = segments.scale[segment]
    if segments.row_scales:
        scale = _read(payload, at, 1, torch.float16).squeeze(1).float()
    shifted = (codes + segments.shift[segment].unsqueeze(1)) * scale.unsqueeze(1)
    if segments.row_biases:
        return shifted + _read(payload, at + 2, 1, torch.float16).float()
    return shifted + segments.offsets[segments.offset[segment]]


def _read(payload: Tensor, at: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """`count` numbers that start at byte `at` (N,), aligned or not -> (N, count) of `dtype`."""
    size = count * torch.empty(0, dtype=dtype).element_size()
    address = at.unsqueeze(1) + torch.arange(size, device=at.device)
    return payload[address.clamp(max=len(payload) - 1)].view(dtype)
