"""What a group may be stored as: sharing x dimension x bit-width, and the plan that choices make.

    own         a row for every id                       bytes: rows x row
                its columns alike, or in parts of falling bits, each with a scale
    hashed      ids share ceil(ratio x rows) rows                 stored rows x row
    codebook    ids read that of 2^bits rows which a code names  code bits x rows, 2^bits rows a run
    one         all ids of the group share one row                row
    zero        ids read row 0 of their field                     nothing

Neighbouring groups of a field with the same choice become one segment, which saves the entry of a segment in
the directory, and a scale.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoembed.joint.codebooks import CODE_BITS
from autoembed.joint.groups import Group
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Fields
from autoembed.plan import BITS, FieldPlan, Numbering, Profile, Segment, Sharing, segment_entry_bytes

RATIOS = (1 / 4, 1 / 16, 1 / 64)
WIDTHS = ("int1", "int2", "int3", "int4", "int6", "int8", "fp16", "fp32")
SHARED_WIDTHS = ("int4", "int8", "fp16")  # rows that are shared are few: narrower ones save little
SMALL = 1 / 2000  # of a budget: a hundred fields left alone take a twentieth of it
# Where the profile stores rows in parts, what else is worth a price: other widths of shared rows and of
# prefixes (of half the dimension, a quarter, less) were in no plan of docs/joint.md's data
SHARED_BESIDE_PARTS = {"one": ("int4", "int8"), "hashed": ("int4",)}
PREFIXES_BESIDE_PARTS = (("int1", "int2", "int3", "int4"), ("int2", "int4", "int6"), ("int3", "int4"))
# where parts end, in eighths of the dimension, and their bits
PARTS = (
    ((1, 8), (2, 4)),
    ((1, 8), (2, 4), (4, 2)),
    ((1, 8), (3, 6), (8, 4)),
    ((1, 8), (4, 4), (8, 2)),
    ((1, 4), (3, 2)),
    ((2, 8), (6, 4), (8, 2)),
    ((2, 6), (4, 4), (6, 2)),
    ((2, 6), (4, 4), (8, 2)),
    ((2, 6), (6, 2)),
    ((2, 4), (6, 3), (8, 2)),
    ((2, 2), (6, 1)),
    ((4, 5), (8, 4)),
    ((4, 3), (8, 2)),
    ((4, 3), (8, 1)),
    ((4, 2), (8, 1)),
    ((6, 4), (8, 2)),
)
HASHED_ROWS = 16  # smaller groups gain nothing by a hash that one shared row does not give them
CODEBOOK_PRECISION = "int8"  # how a codebook's rows are stored


@dataclass(frozen=True)
class Choice:
    """How a group is stored. `sharing` is own, hashed (to `ratio` of the rows), codebook, one or zero.

    `dim` columns are stored. `precision` is that of all of them, or of the first part of several: `parts` are
    the column at which each ends, and its precision. A codebook has at most 2^`code_bits` rows.
    """

    sharing: str
    ratio: float
    dim: int
    precision: str
    parts: tuple[tuple[int, str], ...] = ()
    code_bits: int = 0

    def stored_rows(self, rows: int) -> int:
        """Rows stored for a group, or for neighbouring groups together."""
        if self.sharing == "own":
            return rows
        if self.sharing == "hashed":
            return max(1, math.ceil(self.ratio * rows))
        if self.sharing == "codebook":
            return min(1 << self.code_bits, rows)
        return 1 if self.sharing == "one" else 0

    @property
    def kind(self) -> str:
        """What is calibrated together: the sharing, and for own rows the precision."""
        return f"own {self.precision}" if self.sharing == "own" else self.sharing

    @property
    def is_integer(self) -> bool:
        return self.sharing != "zero" and self.precision.startswith("int")

    @property
    def columns(self) -> tuple[tuple[int, str], ...]:
        """How many columns each part holds, and its precision."""
        stops = (0, *(stop for stop, _ in self.parts))
        widths = [stop - start for start, stop in itertools.pairwise(stops)]
        return tuple((width, p) for width, (_, p) in zip(widths, self.parts, strict=True)) or (
            (self.dim, self.precision),
        )


def menu(spec: TableSpec) -> tuple[Choice, ...]:
    """All choices that the hardware profile can serve, `zero` first."""
    known, parts = spec.profile.precisions, _in_parts(spec)
    dims = [spec.dim]
    while dims[-1] >= 4:
        dims.append(dims[-1] // 2)
    found = [Choice("zero", 0.0, spec.dim, known[0])]
    for sharing, ratios in (("one", (0.0,)), ("hashed", RATIOS[::-1])):
        widths = SHARED_BESIDE_PARTS[sharing] if parts else SHARED_WIDTHS
        found += [Choice(sharing, ratio, spec.dim, p) for p in widths if p in known for ratio in ratios]
    if not spec.profile.row_scale_bytes and CODEBOOK_PRECISION in known:
        sizes = itertools.product(CODE_BITS, dims[:2])
        found += [Choice("codebook", 0.0, dim, CODEBOOK_PRECISION, code_bits=bits) for bits, dim in sizes]
    for halvings, dim in reversed(list(enumerate(dims))):
        widths = WIDTHS
        if parts and halvings:
            widths = PREFIXES_BESIDE_PARTS[min(halvings, len(PREFIXES_BESIDE_PARTS)) - 1]
        found += [Choice("own", 1.0, dim, p) for p in widths if p in known]
    return (*found, *parts)


def _in_parts(spec: TableSpec) -> list[Choice]:
    """Own rows in PARTS, where the profile stores all of them and the dimension has eighths."""
    found = []
    for cut in PARTS if spec.dim % 8 == 0 and not spec.profile.row_scale_bytes else ():
        parts = tuple((spec.dim * eighths // 8, f"int{bits}") for eighths, bits in cut)
        if all(precision in spec.profile.precisions for _, precision in parts):
            found.append(Choice("own", 1.0, parts[-1][0], parts[0][1], parts))
    return found


def allowed(group: Group, choice: Choice) -> bool:
    """Whether a choice is possible and makes sense for the group."""
    if choice.sharing == "zero":
        return group.start > 0
    if choice.sharing == "hashed":
        return group.start > 0 and group.rows >= HASHED_ROWS and choice.stored_rows(group.rows) > 1
    if choice.sharing == "codebook":
        return group.start > 0 and group.rows >= HASHED_ROWS
    return choice.sharing == "own" or group.rows > 1


def small_fields(spec: TableSpec, budget: int) -> frozenset[int]:
    """Fields not worth compressing: in float32 each takes at most a SMALL share of the budget."""
    return frozenset(
        number
        for number, field in enumerate(spec.stats.fields)
        if field.rows * spec.profile.row_bytes(spec.dim, "fp32") <= SMALL * budget
    )


def row_bytes(profile: Profile, group: Group, choice: Choice) -> int:
    """Bytes of the group's rows in the payload, or of their codes."""
    if choice.sharing == "codebook":
        return -(-group.rows * choice.code_bits // 8)
    stored = choice.stored_rows(group.rows)
    return stored * sum(profile.row_bytes(dim, p) for dim, p in choice.columns) if stored else 0


_SHARING = {"own": Sharing.OWN, "codebook": Sharing.CODEBOOK, "hashed": Sharing.HASHED, "one": Sharing.HASHED}


def run_bytes(spec: TableSpec, field: int, choice: Choice, *, padding: bool = True) -> int:
    """Bytes that a segment of this choice takes beside its rows, at most; without `padding`, at least."""
    rows, profile, numbering = spec.stats.fields[field].rows, spec.profile, Numbering()
    if choice.sharing == "zero":
        return segment_entry_bytes(rows, spec.dim, Segment(0, 1, Sharing.OOV), numbering)
    scale = 4 if choice.is_integer and profile.row_scale_bytes == 0 else 0
    beside = len(choice.columns) * (scale + (profile.table_align - 1 if padding else 0))
    sharing = _SHARING[choice.sharing]
    for dim, precision in choice.columns:
        # steps are numbered in turn (fields_of), and so take nothing
        beside += segment_entry_bytes(rows, spec.dim, Segment(0, 1, sharing, 1, dim, precision), numbering)
        sharing = Sharing.TAIL
    if choice.sharing == "codebook":
        beside += sum(profile.row_bytes(dim, p) << choice.code_bits for dim, p in choice.columns)
    return beside


def fields_of(spec: TableSpec, groups: Sequence[Group], chosen: Sequence[Choice]) -> Fields:
    """The field plans in which every group is stored as chosen."""
    segments: list[list[Segment]] = [[] for _ in spec.stats.fields]
    scale = 0
    number = 0
    while number < len(groups):
        first, choice = groups[number], chosen[number]
        last = first
        number += 1
        while (
            choice.sharing != "one"  # the row of one group is not that of the next
            and number < len(groups)
            and groups[number].field == first.field
            and chosen[number] == choice
        ):
            last = groups[number]
            number += 1
        if choice.sharing == "zero":
            segments[first.field].append(Segment(first.start, last.stop, Sharing.OOV))
            continue
        integer = choice.is_integer
        sharing, start = _SHARING[choice.sharing], first.start
        stored = choice.stored_rows(last.stop - first.start)
        for dim, precision in choice.columns:
            grid = integer and BITS[precision] <= 2, scale if integer else None
            segments[first.field].append(Segment(start, last.stop, sharing, stored, dim, precision, *grid))
            sharing, start = Sharing.TAIL, last.stop
            scale += integer
    return tuple(
        FieldPlan(field.name, field.rows, spec.dim, tuple(found))
        for field, found in zip(spec.stats.fields, segments, strict=True)
    )
