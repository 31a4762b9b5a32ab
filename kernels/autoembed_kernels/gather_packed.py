"""Look up rows of packed tables in which every segment has its own width, dimension and scale.

Look-up n reads stored row row[n] of segment segment[n]. The row lies at byte

    at = base[segment] + row * row_bytes[segment]

of the payload: `front` bytes of scale and bias, then the values, then padding.

    integer codes   c (b bits, see bitpack.py):   value[j] = (c[j] + shift) * scale + offset[j]
    fp16, bf16, fp32, little-endian:              value[j] as it is

scale is the segment's, or the fp16 number at the row's front (`front` >= 2); with `front` = 4 the fp16 bias
behind it takes the place of the offset. Columns from the segment's dimension on read zero, and so do
segments of dimension 0, which store nothing.

Both fast paths read 64-bit words at any byte: 8 codes of b bits take b bytes, so one word holds them; it
holds 4 or 2 floats. They rely on a little-endian machine, as the file format does.
"""

import ctypes
import struct
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices, check_shape
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.large_pages import in_large_pages
from autoembed_kernels.native.loader import address, native_for, readable, threads
from autoembed_kernels.operators import operators

INTEGER, FP16, BF16, FP32 = range(4)
SEGMENT_DTYPES = {
    **dict.fromkeys(("base", "row_bytes", "dim", "bits"), torch.int64),
    **{"kind": torch.uint8, "front": torch.int64, "shift": torch.float32, "scale": torch.float32},
    **{"offset": torch.int64, "offsets": torch.float32},
}
SEGMENT_TENSORS = tuple(SEGMENT_DTYPES)
_OF_PROCESS = ("readable", "native", "gpu_words")
_FLOAT_DTYPES = {FP16: torch.float16, BF16: torch.bfloat16, FP32: torch.float32}


@dataclass(frozen=True)
class PackedSegments:
    """Per segment (S,): where its rows lie and how to read them.

    base, row_bytes, dim, bits int64 (bits 1..8 of integer codes, else 8); kind uint8 (INTEGER, FP16, BF16,
    FP32); front int64 (0, 2 or 4); shift, scale float32; offset (S,) int64 rows of `offsets` (O, W) float32.
    `kinds` are the kinds that occur, `width` W is the number of columns to return. `any_narrow`: a segment
    has fewer columns; `any_offset`: an offset is not zero; `whole_rows`: all rows are W floats of one kind
    and begin at multiples of 16 bytes.
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
    whole_rows: bool = False

    @cached_property
    def readable(self) -> bool:
        """Whether C++ can read the tensors."""
        return readable(*(getattr(self, name) for name in SEGMENT_TENSORS))

    @cached_property
    def native(self) -> "NativeSegments":
        """As native/packed.h reads it, made once. Raises TypeError for a tensor of another dtype."""
        addresses = typed_addresses(self, SEGMENT_DTYPES)
        return NativeSegments(*addresses, len(self.base), self.width, self.any_offset)

    def __getstate__(self) -> dict[str, object]:
        """All but what is of this process: copies have tensors of their own."""
        return {name: value for name, value in self.__dict__.items() if name not in _OF_PROCESS}


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
    return in_large_pages(words)


def gather_packed(words: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor) -> Tensor:
    """words of `as_words`, segment (N,) int64, row (N,) int64 stored rows -> (N, W) float32.

    Equals the reference to float32 rounding: 3 * 2^-24 * (|c + shift| * |scale| + |offset|). On a CPU with
    the C++ library, raises IndexError where a segment does not exist or a row lies outside the payload.
    Raises ValueError where shapes do not fit or words are of another dtype.
    """
    if torch.compiler.is_compiling():
        from autoembed_kernels.ops.packed import segments_as_arguments

        held = segments_as_arguments(segments)
        traced: Tensor = operators().gather_packed(words, *held, segment, row)
        return traced
    return eager_gather_packed(words, segments, segment, row)


def eager_gather_packed(words: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor) -> Tensor:
    """`gather_packed` itself."""
    check_words(words)
    segment, row = as_indices("segment", segment).contiguous(), as_indices("row", row).contiguous()
    check_shape("segment", segment, row.shape, "one for each row")
    native = native_for(words, segment, row) if segments.readable else None
    if native is None and triton_for(words, segment, row):
        from autoembed_kernels.gpu.gather_packed import triton_gather_packed

        return triton_gather_packed(words, segments, segment, row)
    if native is None:
        return torch_gather_packed(words, segments, segment, row)
    return native_gather_packed(native, words, segments, segment, row, torch.empty(len(row), segments.width))


def check_words(words: Tensor) -> None:
    """Raises ValueError where these are not what `as_words` makes."""
    if words.dtype != torch.int64 or words.dim() != 1:
        raise ValueError(
            f"words has shape {tuple(words.shape)} and dtype {words.dtype}, expected int64 of `as_words`"
        )


class NativeSegments(ctypes.Structure):
    """`PackedSegments` as native/packed.h reads it; holds addresses, not the tensors."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in SEGMENT_TENSORS),
        *((name, ctypes.c_int64) for name in ("count", "width", "any_offset")),
    )


def typed_addresses(held: object, dtypes: dict[str, torch.dtype]) -> list[int | None]:
    """Addresses of the tensors that `held` has under these names. Raises TypeError for another dtype."""
    tensors = [getattr(held, name) for name in dtypes]
    for (name, dtype), tensor in zip(dtypes.items(), tensors, strict=True):
        if tensor.dtype != dtype:
            raise TypeError(f"{type(held).__name__}.{name} is {tensor.dtype}, expected {dtype}")
    return [address(tensor) for tensor in tensors]


def native_gather_packed(
    library: ctypes.CDLL, words: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor, out: Tensor
) -> Tensor:
    """`gather_packed` into out (N, W), in one pass over the look-ups."""
    bad = library.autoembed_gather_packed(
        *(address(words), 8 * len(words), ctypes.byref(segments.native)),
        *(address(segment), address(row), len(row), address(out), threads()),
    )
    if bad < 0:
        place = -1 - bad
        raise IndexError(
            f"look-up {place} reads row {int(row[place])} of segment {int(segment[place])}, not among "
            f"the {8 * len(words)} bytes of the payload; there are {len(segments.base)} segments"
        )
    return out


def torch_gather_packed(words: Tensor, segments: PackedSegments, segment: Tensor, row: Tensor) -> Tensor:
    """`gather_packed` in torch, on any device: one pass for all integer widths, one for each float type."""
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
