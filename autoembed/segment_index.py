"""The index bytes that segments keep for themselves, behind the directory: whose are where, and their rules.

How many bytes a segment keeps is `autoembed.plan.segment_index_bytes`; what they hold depends on its sharing.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from autoembed.plan import Plan, Segment, Sharing, placed, segment_index_bytes
from autoembed_kernels.bitpack import pack_bits, unpack_bits
from autoembed_kernels.code_stream import code_bits
from autoembed_kernels.listed_marks import pack_listed, unpack_listed
from autoembed_kernels.marked_bits import pack_marks, unpack_marks


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
    return segment.stored_rows - int(unpack_marks(index, segment.rows * segment.chunks).sum())


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
        largest = int(unpack_codes(segment, index).max())
        if largest >= segment.stored_rows:
            return f"a code of {largest} names no row of its codebook of {segment.stored_rows}"
    return ""


def _marks_problem(segment: Segment, index: Tensor) -> str:
    if segment.sharing is Sharing.LISTED:
        listed = unpack_listed(index, segment.rows * segment.chunks, segment.stored_rows)
        if torch.equal(pack_listed(listed), index):
            return ""
        return f"its list is none of {segment.stored_rows} marks, ascending and of its chunks"
    marks = unpack_marks(index, segment.rows * segment.chunks)
    if not torch.equal(pack_marks(marks), index):
        return "the counts of its marks, or the bits behind the last mark, are not those of its marks"
    marked = int(marks.sum())
    if segment.sharing is Sharing.MARKED and marked != segment.stored_rows:
        return f"{marked} chunks are marked, {segment.stored_rows} are stored"
    if segment.sharing is Sharing.MARKED_OR_HASHED and marked >= segment.stored_rows:
        return (
            f"{marked} rows are marked, {segment.stored_rows} are stored; at least 1 must be left to hash to"
        )
    return ""
