"""The tables as they lie in the exported file: packing rows under a plan, and reading them back."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from autoembed.plan import Plan, Segment


@dataclass(frozen=True)
class SegmentRows:
    """What a method stores in one segment.

    values (stored_rows, dim) float32: for integer codes the rows before rounding. `scale`: the
    learned step of the codes, a scalar or one per row; None fits it to the values, which only
    profiles with a scale in each row may do.
    """

    values: Tensor
    scale: Tensor | None = None


@dataclass(frozen=True)
class Packed:
    """A packed plan: exactly the tensors of the tables file.

    payload (bytes,) uint8; scales (S,) float32; offsets float32, behind one another; projections
    float16, row-major matrices behind one another in field order.
    """

    plan: Plan
    payload: Tensor
    scales: Tensor
    offsets: Tensor
    projections: Tensor


RowsOf = Callable[[int, Segment], SegmentRows]


def pack(
    plan: Plan,
    rows_of: RowsOf,
    scales: Tensor | None = None,
    offsets: list[Tensor] | None = None,
    projections: list[Tensor] | None = None,
) -> Packed:
    """Pack a plan. `rows_of(field index, segment)` is asked for every segment that stores rows."""
    raise NotImplementedError
