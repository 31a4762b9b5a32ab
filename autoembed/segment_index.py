"""The index bytes that segments keep for themselves, behind the directory: whose are where, and their rules.

How many bytes a segment keeps is `autoembed.plan.segment_index_bytes`; what they hold depends on its sharing.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from autoembed.packed_marks import count_marks, is_list_of_marks
from autoembed.plan import Plan, Segment, Sharing, placed, segment_index_bytes
from autoembed_kernels.bitpack import pack_bits, unpack_bits
from autoembed_kernels.code_stream import code_bits

_CODES = 1 << 20  # codes that are unpacked together to check them; eight end on a byte


def placed_index(plan: Plan) -> Iterator[tuple[int, Segment, int]]:
    """Field index, segment and the byte at which its index bytes start, of all segments in file order."""
    at = 0
    for field, segment, _ in placed(plan):
        yield field, segment, at
        at += segment_index_bytes(segment)


def check_segment_index(plan: Plan, segment_index: Tensor) -> None:
    """segment_index uint8, of all segments behind one another. Raises ValueError where one breaks a rule."""
    for field, segment, at in placed_index(plan):
        own = segment_index[at : at + segment_index_bytes(segment)]
        problem = _marks_problem(segment, own) if segment.sharing.is_marked else ""
        if segment.sharing is Sharing.CODEBOOK:
            problem = _codes_problem(segment, own)
        if problem:
            name = plan.fields[field].name
            raise ValueError(f"field {name!r}, rows [{segment.start}, {segment.stop}): {problem}")


def hashed_rows(segment: Segment, index: Tensor) -> int:
    """How many rows lie before the marked ones; index (bytes,) uint8 are the marked segment's own."""
    marked = count_marks(index, segment.rows * segment.chunks)
    assert marked is not None  # `check_segment_index` has seen them
    return segment.stored_rows - marked


def pack_codes(segment: Segment, codes: Tensor) -> Tensor:
    """codes (rows,) of a codebook segment -> its index bytes."""
    return pack_bits(codes.view(1, -1), code_bits(segment.stored_rows)).flatten()


def unpack_codes(segment: Segment, index: Tensor) -> Tensor:
    """`pack_codes` back: (rows,) uint8."""
    return unpack_bits(index.view(1, -1), segment.rows, code_bits(segment.stored_rows)).flatten()


def _codes_problem(segment: Segment, index: Tensor) -> str:
    bits = code_bits(segment.stored_rows)
    left = segment.rows * bits % 8  # bits of the last byte that are of codes; 0 where all are
    if left and int(index[-1]) >> left:
        return "the bits behind the last code are not zero"
    if segment.stored_rows < 1 << bits:
        pieces = torch.split(index, _CODES * bits // 8)
        counts = [_CODES] * (len(pieces) - 1) + [segment.rows - _CODES * (len(pieces) - 1)]
        largest = max(
            int(unpack_bits(piece.view(1, -1), count, bits).max())
            for piece, count in zip(pieces, counts, strict=True)
        )
        if largest >= segment.stored_rows:
            return f"a code of {largest} names no row of its codebook of {segment.stored_rows}"
    return ""


def _marks_problem(segment: Segment, index: Tensor) -> str:
    if segment.sharing is Sharing.LISTED:
        if is_list_of_marks(index, segment.rows * segment.chunks, segment.stored_rows):
            return ""
        return f"its list is none of {segment.stored_rows} marks, ascending and of its chunks"
    marked = count_marks(index, segment.rows * segment.chunks)
    if marked is None:
        return "the counts of its marks, or the bits behind the last mark, are not those of its marks"
    if segment.sharing is Sharing.MARKED and marked != segment.stored_rows:
        return f"{marked} chunks are marked, {segment.stored_rows} are stored"
    if segment.sharing is Sharing.MARKED_OR_HASHED and marked >= segment.stored_rows:
        return (
            f"{marked} rows are marked, {segment.stored_rows} are stored; at least 1 must be left to hash to"
        )
    return ""
