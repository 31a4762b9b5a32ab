"""Rows of all fields -> their values in packed tables: which segment, which stored row, then the gather.

    s       = the last segment whose start[s] is at most the row
    s, row  = field_segment[s], field_start[s]         where reads_row_0[s]: the field's first row
    stored  = row - start[s]
            | row_hash(row - field_start[s], field[s], buckets[s])         where hashed[s]
            | code `row - start[s]` of the stream at codes[code_at[s]]     where code_bits[s] > 0
    values  = gather_packed(words, segments, s, stored)

Rows are counted over all fields, one field behind the other, and start is ascending.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices
from autoembed_kernels.code_stream import read_codes
from autoembed_kernels.gather_packed import PackedSegments, check_words, torch_gather_packed, typed_addresses
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import checked, native_for, readable, threads
from autoembed_kernels.operators import operators
from autoembed_kernels.row_hash import row_hash

ROW_DTYPES = {
    **dict.fromkeys(("start", "field_start", "field_segment", "field", "buckets"), torch.int64),
    **dict.fromkeys(("code_bits", "code_at"), torch.int64),
    **dict.fromkeys(("reads_row_0", "hashed"), torch.bool),
    "codes": torch.uint8,
}
ROW_TENSORS = tuple(ROW_DTYPES)


@dataclass(frozen=True)
class PackedRows:
    """Per segment (S,): which rows it serves.

    start, field_start: the first row of the segment and of its field; field_segment: the field's first
    segment; field: its number; buckets >= 1: stored rows that hashing chooses from; code_bits: those of the
    code that names its row of a codebook, or 0; code_at: the byte of `codes` where its codes begin; int64.
    reads_row_0, hashed bool. codes (bytes,) uint8, of all segments, with `code_stream.PAD` bytes behind them.
    `rows` is the number of rows of all fields.
    """

    start: Tensor
    field_start: Tensor
    field_segment: Tensor
    field: Tensor
    buckets: Tensor
    code_bits: Tensor
    code_at: Tensor
    reads_row_0: Tensor
    hashed: Tensor
    codes: Tensor
    any_reads_row_0: bool
    any_hashed: bool
    any_coded: bool
    rows: int

    @cached_property
    def readable(self) -> bool:
        """Whether C++ can read the tensors."""
        return readable(*(getattr(self, name) for name in ROW_TENSORS))

    @cached_property
    def native(self) -> "NativeRows":
        """As native/packed.h reads it, made once. Raises TypeError for a tensor of another dtype."""
        return NativeRows(*typed_addresses(self, ROW_DTYPES), self.rows)

    def __getstate__(self) -> dict[str, object]:
        """All but what is of this process: copies have tensors of their own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("readable", "native")}


def look_up_packed(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, rows: Tensor, columns: int = 1
) -> Tensor:
    """words of `as_words`, rows (N,) int64 or int32 -> (N, W) float32, columns past a segment's own zero.

    `columns`: where look-up n mostly reads the field that look-up n - columns read; it only saves time.
    On a CPU with the C++ library, raises IndexError where a row is negative or not below `addresses.rows`.
    Raises ValueError where rows have another shape or words another dtype.
    """
    if torch.compiler.is_compiling():
        from autoembed_kernels.ops.packed import rows_as_arguments, segments_as_arguments

        packed = (*segments_as_arguments(segments), *rows_as_arguments(addresses))
        traced: Tensor = operators().look_up_packed(words, *packed, rows, columns)
        return traced
    return eager_look_up_packed(words, segments, addresses, rows, columns)


def eager_look_up_packed(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, rows: Tensor, columns: int
) -> Tensor:
    """`look_up_packed` itself."""
    rows = as_indices("rows", rows, torch.int32).contiguous()
    check_words(words)
    native = native_for(words, rows) if segments.readable and addresses.readable else None
    if native is None:
        check_rows(rows, addresses.rows)
        if triton_for(words, rows):
            from autoembed_kernels.gpu.look_up_packed import triton_look_up_packed

            return triton_look_up_packed(words, segments, addresses, rows)
        return torch_look_up_packed(words, segments, addresses, rows)
    out = torch.empty(rows.numel(), segments.width)
    return native_look_up_packed(native, words, segments, addresses, rows, columns, out)


class NativeRows(ctypes.Structure):
    """`PackedRows` as native/packed.h reads it; holds addresses, not the tensors."""

    _fields_ = (*((name, ctypes.c_void_p) for name in ROW_TENSORS), ("rows", ctypes.c_int64))


def native_look_up_packed(
    library: ctypes.CDLL,
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    rows: Tensor,
    columns: int,
    out: Tensor,
) -> Tensor:
    """`look_up_packed` into out (N, W), in one pass over the look-ups."""
    bad = library.autoembed_look_up_packed(
        *(words.data_ptr(), 8 * words.numel()),  # numel takes a tenth of the time of len
        *(ctypes.byref(segments.native), ctypes.byref(addresses.native)),
        *(rows.data_ptr(), rows.element_size(), rows.numel(), max(1, columns), out.data_ptr(), threads()),
    )
    checked(bad, rows, addresses.rows, "row")
    return out


def torch_look_up_packed(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, rows: Tensor
) -> Tensor:
    """`look_up_packed` in torch, on any device, without a check of the rows."""
    _, segment, stored = stored_rows(addresses, rows)
    return torch_gather_packed(words, segments, segment, stored)


def stored_rows(addresses: PackedRows, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """rows (N,) -> the rows that are read for them, their segments and the stored rows there, (N,) each."""
    segment = torch.searchsorted(addresses.start, rows, right=True) - 1
    if addresses.any_reads_row_0:
        away = addresses.reads_row_0[segment]
        rows = torch.where(away, addresses.field_start[segment], rows)
        segment = torch.where(away, addresses.field_segment[segment], segment)
    stored = rows - addresses.start[segment]
    if addresses.any_hashed:
        salt, buckets = addresses.field[segment], addresses.buckets[segment]
        hashed = row_hash(rows - addresses.field_start[segment], salt, buckets)
        stored = torch.where(addresses.hashed[segment], hashed, stored)
    if addresses.any_coded:
        bits = addresses.code_bits[segment]
        code = read_codes(addresses.codes, addresses.code_at[segment], bits, stored)
        stored = torch.where(bits > 0, code, stored)
    return rows, segment, stored
