"""Look up rows of packed tables in which every segment has its own width, dimension and scale.

Look-up n reads stored row row[n] of segment segment[n]. The row lies at byte

    at = base[segment] + row * row_bytes[segment]

of the payload: `front` bytes of scale and bias, then the values, then padding.

    integer codes   c (b bits, see bitpack.py):   value[j] = (c[j] + shift) * scale + offset[j]
    fp16, bf16, fp32, little-endian:              value[j] as it is

scale is the segment's, or the fp16 number at the row's front (`front` >= 2); with `front` = 4 the fp16 bias
behind it takes the place of the offset. Columns from the segment's dimension on read zero, and so do
segments of dimension 0, which store nothing.

The fast path reads 64-bit words at any byte: 8 codes of b bits take b bytes, so one word holds them; it
holds 4 or 2 floats. It relies on a little-endian machine, as the file format does.
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
    `kinds` are the kinds that occur, `width` W is the number of columns to return. `any_narrow`: a segment
    has fewer columns; `any_offset`: an offset is not zero.
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
    any_narrow: bool
    any_offset: bool
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


def as_words(payload: Tensor, width: int) -> Tensor:
    """payload (P,) uint8 -> its bytes as int64 words, for `gather_packed` of up to `width` columns.

    Zeros follow, so that a row of `width` float32 may be read from any byte of the payload.
    """
    words = torch.zeros(len(payload) // 8 + width // 2 + 3, dtype=torch.int64, device=payload.device)
    words.view(torch.uint8)[: len(payload)] = payload
    return words


def gather_packed(words: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor) -> Tensor:
    """words of `as_words`, segment (N,) int64, row (N,) int64 stored rows -> (N, W) float32.

    One pass for all integer widths and one for each float type that occurs. Equals the reference to
    float32 rounding: 3 * 2^-24 * (|c + shift| * |scale| + |offset|).
    """
    if segments.kinds == ():
        return torch.zeros(len(row), segments.width, device=row.device)
    at = segments.base[segment] + row * segments.row_bytes[segment]  # (N,)
    if len(segments.kinds) == 1:
        values = _gather_kind(segments.kinds[0], words, segments, segment, at)
    else:
        kind = segments.kind[segment]
        values = torch.empty(len(row), segments.width, device=row.device)
        for one in segments.kinds:
            chosen = (kind == one).nonzero().squeeze(1)
            values[chosen] = _gather_kind(one, words, segments, segment[chosen], at[chosen])
    if not segments.any_narrow:
        return values
    columns = torch.arange(segments.width, device=row.device)
    # a column past the dimension holds bytes of the next row, maybe a NaN: select, never multiply
    return torch.where(columns < segments.dim[segment].unsqueeze(1), values, 0.0)


def _gather_kind(kind: int, words: Tensor, segments: PackedSegments, segment: Tensor, at: Tensor) -> Tensor:
    width = segments.width
    if kind != INTEGER:
        dtype = _FLOAT_DTYPES[kind]
        return _read(words, at, -(-width * dtype.itemsize // 8)).view(dtype)[:, :width].float()
    bits = segments.bits[segment].unsqueeze(1)
    eights = torch.arange(-(-width // 8), device=at.device)
    address = (at + segments.front[segment]).unsqueeze(1) + eights * bits  # (N, eights)
    stream = _read(words, address.flatten(), 1).view(len(at), len(eights), 1)
    codes = stream >> (bits * torch.arange(8, device=at.device)).unsqueeze(1)  # (N, eights, 8)
    codes &= ((1 << bits) - 1).unsqueeze(2)
    values = codes.flatten(1)[:, :width].float().add_(segments.shift[segment].unsqueeze(1))
    if segments.row_scales:
        front = _read(words, at, 1).view(torch.float16).float()  # (N, 4): scale, bias, ..
        values.mul_(front[:, :1])
    else:
        values.mul_(segments.scale[segment].unsqueeze(1))
    if segments.row_biases:
        return values.add_(front[:, 1:2])
    return values.add_(segments.offsets[segments.offset[segment]]) if segments.any_offset else values


def _read(words: Tensor, address: Tensor, count: int) -> Tensor:
    """The 8 * count bytes from byte `address` (N,) on, aligned or not, as (N, count) int64 words."""
    # a row of this view is a run of count + 1 words; runs overlap, so that one copy fetches a whole run
    runs = words.as_strided((len(words) - count, count + 1), (1, 1)).index_select(0, address >> 3)
    shift = ((address & 7) << 3).unsqueeze(1)
    low = runs[:, :-1] >> shift
    low &= ~(-2 << (63 - shift))  # the shift copies the sign; these bits come from the next word
    return low | ((runs[:, 1:] << 1) << (63 - shift))
