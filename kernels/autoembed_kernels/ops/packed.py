"""Look-ups in packed tables, and packing, as custom operators. None of them has a gradient.

`PackedSegments` and `PackedRows` go in as the list of their tensors, in the order of SEGMENT_TENSORS and
ROW_TENSORS, and the numbers behind them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoembed_kernels.bitpack import eager_pack_bits, eager_unpack_bits, packed_row_bytes
from autoembed_kernels.gather_packed import SEGMENT_TENSORS, PackedSegments, eager_gather_packed
from autoembed_kernels.look_up_packed import ROW_TENSORS, PackedRows, eager_look_up_packed

_SEGMENTS = (
    "Tensor[] segments, int[] kinds, bool row_scales, bool row_biases, bool any_narrow, bool any_offset, "
    "int width, bool whole_rows"
)


def segments_as_arguments(
    segments: PackedSegments,
) -> tuple[list[Tensor], list[int], bool, bool, bool, bool, int, bool]:
    """What the operators take for a `PackedSegments`."""
    return (
        [getattr(segments, name) for name in SEGMENT_TENSORS],
        list(segments.kinds),
        *(segments.row_scales, segments.row_biases, segments.any_narrow, segments.any_offset),
        segments.width,
        segments.whole_rows,
    )


def rows_as_arguments(addresses: PackedRows) -> tuple[list[Tensor], bool, bool, bool, int]:
    """What the operators take for a `PackedRows`."""
    held = [getattr(addresses, name) for name in ROW_TENSORS]
    return held, addresses.any_reads_row_0, addresses.any_hashed, addresses.any_coded, addresses.rows


def _segments(
    tensors: Sequence[Tensor],
    kinds: Sequence[int],
    row_scales: bool,
    row_biases: bool,
    any_narrow: bool,
    any_offset: bool,
    width: int,
    whole_rows: bool,
) -> PackedSegments:
    return PackedSegments(
        **dict(zip(SEGMENT_TENSORS, tensors, strict=True)),
        kinds=tuple(kinds),
        row_scales=row_scales,
        row_biases=row_biases,
        any_narrow=any_narrow,
        any_offset=any_offset,
        width=width,
        whole_rows=whole_rows,
    )


@torch.library.custom_op(
    "autoembed::gather_packed",
    mutates_args=(),
    schema=f"(Tensor words, {_SEGMENTS}, Tensor segment, Tensor row) -> Tensor",
)
def gather_packed(
    words: Tensor,
    segments: Sequence[Tensor],
    kinds: Sequence[int],
    row_scales: bool,
    row_biases: bool,
    any_narrow: bool,
    any_offset: bool,
    width: int,
    whole_rows: bool,
    segment: Tensor,
    row: Tensor,
) -> Tensor:
    held = _segments(segments, kinds, row_scales, row_biases, any_narrow, any_offset, width, whole_rows)
    return eager_gather_packed(words, held, segment, row)


@gather_packed.register_fake
def _(
    words: Tensor,
    segments: Sequence[Tensor],
    kinds: Sequence[int],
    row_scales: bool,
    row_biases: bool,
    any_narrow: bool,
    any_offset: bool,
    width: int,
    whole_rows: bool,
    segment: Tensor,
    row: Tensor,
) -> Tensor:
    return row.new_empty(row.shape[0], width, dtype=torch.float32)


@torch.library.custom_op(
    "autoembed::look_up_packed",
    mutates_args=(),
    schema=(
        f"(Tensor words, {_SEGMENTS}, Tensor[] addresses, bool any_reads_row_0, bool any_hashed, "
        "bool any_coded, int rows, Tensor looked_up, int columns) -> Tensor"
    ),
)
def look_up_packed(
    words: Tensor,
    segments: Sequence[Tensor],
    kinds: Sequence[int],
    row_scales: bool,
    row_biases: bool,
    any_narrow: bool,
    any_offset: bool,
    width: int,
    whole_rows: bool,
    addresses: Sequence[Tensor],
    any_reads_row_0: bool,
    any_hashed: bool,
    any_coded: bool,
    rows: int,
    looked_up: Tensor,
    columns: int,
) -> Tensor:
    held = _segments(segments, kinds, row_scales, row_biases, any_narrow, any_offset, width, whole_rows)
    served = PackedRows(
        **dict(zip(ROW_TENSORS, addresses, strict=True)),
        any_reads_row_0=any_reads_row_0,
        any_hashed=any_hashed,
        any_coded=any_coded,
        rows=rows,
    )
    return eager_look_up_packed(words, held, served, looked_up, columns)


@look_up_packed.register_fake
def _(
    words: Tensor,
    segments: Sequence[Tensor],
    kinds: Sequence[int],
    row_scales: bool,
    row_biases: bool,
    any_narrow: bool,
    any_offset: bool,
    width: int,
    whole_rows: bool,
    addresses: Sequence[Tensor],
    any_reads_row_0: bool,
    any_hashed: bool,
    any_coded: bool,
    rows: int,
    looked_up: Tensor,
    columns: int,
) -> Tensor:
    return looked_up.new_empty(looked_up.shape[0], width, dtype=torch.float32)


@torch.library.custom_op("autoembed::pack_bits", mutates_args=(), schema="(Tensor codes, int bits) -> Tensor")
def pack_bits(codes: Tensor, bits: int) -> Tensor:
    return _own(eager_pack_bits(codes, bits), codes)


@pack_bits.register_fake
def _(codes: Tensor, bits: int) -> Tensor:
    return codes.new_empty(codes.shape[0], packed_row_bytes(codes.shape[1], bits), dtype=torch.uint8)


@torch.library.custom_op(
    "autoembed::unpack_bits", mutates_args=(), schema="(Tensor packed, int dim, int bits) -> Tensor"
)
def unpack_bits(packed: Tensor, dim: int, bits: int) -> Tensor:
    return _own(eager_unpack_bits(packed, dim, bits), packed)


@unpack_bits.register_fake
def _(packed: Tensor, dim: int, bits: int) -> Tensor:
    return packed.new_empty(packed.shape[0], dim, dtype=torch.uint8)


def _own(made: Tensor, given: Tensor) -> Tensor:
    """`made`, contiguous and in memory of its own, as an operator must return it: 8 bits pass through."""
    return made.clone(memory_format=torch.contiguous_format) if made.data_ptr() == given.data_ptr() else made
