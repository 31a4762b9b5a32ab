"""How methods write a plan down: segments of codes or floats, and where their rows lie while training.

Methods always number the learned steps of integer segments by `scale`; `stored_plan` drops the numbers where
a hardware profile keeps scales in the rows.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from autoembed.budget import Footprint
from autoembed.methods.base import TableSpec
from autoembed.plan import FieldPlan, Plan, Profile, Segment, Sharing, plan_bytes

Fields = tuple[FieldPlan, ...]
# of segments that read a codebook, by field and first row: which of its rows each id reads, (rows,) uint8
Codes = Mapping[tuple[int, int], Tensor]
PlacedSegment = tuple[int, Segment, int]  # field, segment, first row among all stored rows


@dataclass(frozen=True)
class PlacedPart:
    """Columns [column, column + segment.dim) of rows stored alike, from row `first` of all that are stored.

    `segment` is `head` itself, in column 0, or one of the tails behind it.
    """

    field: int
    head: Segment
    segment: Segment
    first: int
    column: int


def stored_plan(profile: Profile, fields: Fields) -> Plan:
    """The plan as it is stored: profiles with a scale in each row take no shared scales and offsets."""
    if profile.row_scale_bytes == 0:
        return Plan(profile, fields)
    return Plan(
        profile,
        tuple(
            dataclasses.replace(
                field,
                segments=tuple(dataclasses.replace(s, scale=None, offset=None) for s in field.segments),
            )
            for field in fields
        ),
    )


def numbered_fields(plan: Plan) -> Fields:
    """The field plans of a stored plan, with every integer segment's learned step numbered in plan order."""
    fields, scale = [], 0
    for field in plan.fields:
        segments = []
        for s in field.segments:
            segments.append(dataclasses.replace(s, scale=scale if s.is_integer else None, offset=None))
            scale += s.is_integer
        fields.append(dataclasses.replace(field, segments=tuple(segments)))
    return tuple(fields)


def fields_bytes(spec: TableSpec, fields: Fields) -> int:
    """Bytes of the exported tables file under these field plans."""
    return plan_bytes(stored_plan(spec.profile, fields)).total


def fixed_footprint(spec: TableSpec, fields: Fields) -> Footprint:
    """The footprint of a method that learns nothing about its plan."""
    size = fields_bytes(spec, fields)
    return Footprint(size, size)


def stored_segment(
    start: int, stop: int, dim: int, bits: int, step: int, stored_rows: int = 0, *, signs: bool = False
) -> Segment:
    """Rows [start, stop) of `bits` 1..8, 16 or 32; hashed to `stored_rows` where that is not 0.

    `step` numbers the learned step of integer codes. 1 and 2 bits use the mid-rise grid, which wastes no
    level on one side of zero; with `signs` codes of any width do (bebr.py).
    """
    sharing = Sharing.HASHED if stored_rows else Sharing.OWN
    rows = stored_rows or stop - start
    if bits > 8:
        return Segment(start, stop, sharing, rows, dim, "fp32" if bits == 32 else "fp16")
    return Segment(start, stop, sharing, rows, dim, f"int{bits}", mid_rise=signs or bits <= 2, scale=step)


GRIDS = ("steps", "signs")  # of codes: multiples of a step with zero among them, or sums of signs (bebr.py)


def is_signs(grid: str, bits: int, profile: Profile) -> bool:
    """Whether codes of `bits` are sums of signs under a knob with the values GRIDS.

    Raises ValueError where the profile keeps a half-precision bias that 3 and more signs do not fit.
    """
    if grid == "signs" and 2 < bits <= 8 and profile.row_scale_bytes == 4:
        raise ValueError(
            f"profile {profile.name!r} cannot store the bias of {bits} signs exactly; "
            "take 1 or 2 bits, or a packed profile"
        )
    return grid == "signs"


def uniform_fields(spec: TableSpec, bits: int, *, signs: bool = False) -> Fields:
    """Every field as one segment of `bits`, with a step of its own where that means codes.

    signs: codes of any width on the mid-rise grid, which has no zero.
    """
    fields = []
    for number, field in enumerate(spec.stats.fields):
        segment = stored_segment(0, field.rows, spec.dim, bits, number, signs=signs)
        fields.append(FieldPlan(field.name, field.rows, spec.dim, (segment,)))
    return tuple(fields)


def placed_segments(fields: Fields) -> Iterator[PlacedSegment]:
    """Every segment that stores rows, with its place in a table that holds just these rows, whole."""
    for part in placed_parts(fields):
        if part.column == 0:
            yield part.field, part.segment, part.first


def placed_parts(fields: Fields) -> Iterator[PlacedPart]:
    """Every segment that stores rows and every tail, in file order."""
    first = column = 0
    for number, field in enumerate(fields):
        head = None
        for segment in field.segments:
            if segment.sharing is Sharing.TAIL:
                assert head is not None, "a tail follows the segment whose rows it goes on with"
                yield PlacedPart(number, head, segment, first - head.stored_rows, column)
                column += segment.dim
            elif segment.stored_rows:
                yield PlacedPart(number, segment, segment, first, 0)
                head, column = segment, segment.dim
                first += segment.stored_rows
