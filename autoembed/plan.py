"""The plan: what every row of every field is stored as, and how many bytes that takes.

Rows of a field stand in an order of worth: row 0 is the out-of-vocabulary row, row 1 the most frequent id of
the train split, and so on, unless another order was learned (joint/order.py). A FieldPlan tiles the rows with
segments; all rows of a segment are stored alike.
The byte model is a pure function of the plan and equals the size of the exported tables file:

    total = header + directory + index bytes of segments + payload + scales + offsets + projections
    directory = its header + an entry per field + an entry per segment (directory.py)
    payload of a segment = round_up(stored_rows * row_bytes, profile.table_align)
    row_bytes = round_up(ceil(dim * bits / 8) + profile.row_scale_bytes [integer codes], profile.row_align)
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

from autoembed_kernels.code_stream import code_bytes
from autoembed_kernels.listed_marks import listed_bytes
from autoembed_kernels.marked_bits import marks_bytes
from autoembed_kernels.path_mlp import HIDDEN_STEP, path_networks, path_rows
from autoembed_kernels.signature_pool import MAX_KEYS, SIGNATURE_BYTES

MAX_CODES = 256  # rows of a codebook
MAX_CHUNKS = 8
SMALL_DIM = 14  # the largest dimension that stands in the byte of a segment's precision
FILE_METADATA = {"format": "autoembed-tables", "version": "2"}
# of the tables file, in file order: name -> safetensors type, bytes of a value; empty ones are left out
TENSORS = {
    "offsets": ("F32", 4),
    "scales": ("F32", 4),
    "projections": ("F16", 2),
    "index": ("U8", 1),
    "payload": ("U8", 1),
}
NONE = 0xFFFF  # scales, offsets and dimensions are numbers below it

BITS = {**{f"int{b}": b for b in range(1, 9)}, "fp16": 16, "bf16": 16, "fp32": 32}
PRECISIONS = tuple(BITS)


class Sharing(IntEnum):
    """How the ids of a segment share stored rows; the value is its code in the file."""

    OWN = 0  # every id has its row
    HASHED = 1  # ids are hashed to `stored_rows` rows; 1 row means that all ids share it
    OOV = 2  # ids read row 0 of the field; nothing is stored, no vocabulary entry is needed
    ZERO = 3  # ids read the zero vector; nothing is stored
    # every id has its own pair of a quotient row and a remainder row (autoembed_kernels.quotient_remainder);
    # both tables lie behind one another in the segment, the quotients first
    QUOTIENT_ADD = 4
    QUOTIENT_MULTIPLY = 5
    QUOTIENT_CONCATENATE = 6  # of twice the stored dimension
    # ids read blocks of `dim` values anywhere in one pool of all fields (autoembed_kernels.pool_slots); the
    # first such segment stores it, `stored_rows` blocks behind one another, the others none
    POOL = 7
    # a vector is `chunks` chunks of `dim` values; marks in the segment's index bytes say which are stored, in
    # order of id and chunk (autoembed_kernels.marked_bits). A chunk without a mark reads zero, or, in whole
    # vectors only, a hashed row: those lie before the marked ones
    MARKED = 8
    MARKED_OR_HASHED = 9
    # as POOL, but an id's blocks are placed by its signature, 8 bytes each in the segment's index bytes; each
    # by `chunks` of the signature's keys (autoembed_kernels.signature_pool)
    SIGNATURE_POOL = 10
    # ids read a quotient row through the network of their remainder, of `chunks` times 8 hidden units
    # (autoembed_kernels.path_mlp); the networks lie as rows behind the quotients
    QUOTIENT_PATH = 11
    # as MARKED, but the index bytes list the marked chunks (autoembed_kernels.listed_marks)
    LISTED = 12
    # no ids of its own, start = stop: codes of the columns behind those of the segment before it, for the
    # same rows, with their own bits and scale
    TAIL = 13
    # every id reads the row of the segment's codebook that its code names; the codes lie in the index bytes
    # (autoembed_kernels.code_stream)
    CODEBOOK = 14

    @property
    def is_marked(self) -> bool:
        return self in (Sharing.MARKED, Sharing.MARKED_OR_HASHED, Sharing.LISTED)

    @property
    def is_pooled(self) -> bool:
        return self in (Sharing.POOL, Sharing.SIGNATURE_POOL)

    @property
    def is_stored(self) -> bool:
        """Whether ids read anything but row 0 or zero."""
        return self not in (Sharing.OOV, Sharing.ZERO)

    @property
    def is_paired(self) -> bool:
        return Sharing.QUOTIENT_ADD <= self <= Sharing.QUOTIENT_CONCATENATE


@dataclass(frozen=True)
class Profile:
    """A hardware profile: row layout and the precisions that the target's kernels can read."""

    name: str
    row_align: int
    row_scale_bytes: int  # in each row of integer codes; 0 = scales are kept per segment
    table_align: int
    precisions: tuple[str, ...]

    def row_bytes(self, dim: int, precision: str) -> int:
        """Bytes of one stored row of `dim` values."""
        code_bytes = -(-dim * BITS[precision] // 8)
        scale_bytes = self.row_scale_bytes if precision.startswith("int") else 0
        return _round_up(code_bytes + scale_bytes, self.row_align)

    def payload_bytes(self, stored_rows: int, dim: int, precision: str) -> int:
        """Bytes of a segment's rows; every row starts on a byte, every segment on `table_align`."""
        return _round_up(stored_rows * self.row_bytes(dim, precision), self.table_align)


_FBGEMM = ("int2", "int4", "int8", "fp16", "fp32")
PROFILES = {
    profile.name: profile
    for profile in (
        Profile("packed", 1, 0, 1, PRECISIONS),
        Profile("packed-row-scale", 1, 2, 1, PRECISIONS),
        Profile("fbgemm-cpu", 1, 4, 128, _FBGEMM),
        Profile("fbgemm-gpu", 16, 4, 128, _FBGEMM),
    )
}


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of a field, stored alike.

    `dim` is the stored prefix of the field's vector; the rest reads as zero, or comes from the
    field's projection. An integer code c of b bits decodes to (c - 2^(b-1)) * scale + offset on the
    mid-tread grid and to (c - 2^(b-1) + 1/2) * scale + offset on the mid-rise grid.
    `scale` and `offset` number the plan's shared scales (one float) and offsets (one float per
    dimension): segments may share them. Profiles with a scale in each row take neither.
    `chunks` is for marked segments: a vector is that many chunks of `dim` values, a stored row is a chunk. In
    signature pools it is the number of keys that place a block, on quotient paths an eighth of the hidden
    units.
    """

    start: int
    stop: int
    sharing: Sharing = Sharing.OWN
    stored_rows: int = 0
    dim: int = 0
    precision: str = "fp32"
    mid_rise: bool = False
    scale: int | None = None
    offset: int | None = None
    chunks: int = 1

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def is_integer(self) -> bool:
        return self.stored_rows > 0 and self.precision.startswith("int")

    @property
    def bits(self) -> int:
        """Bits per stored value; 0 where nothing is stored."""
        return BITS[self.precision] if self.stored_rows else 0


def own(start: int, stop: int, dim: int, precision: str, **grid: int | bool | None) -> Segment:
    """A segment in which every id has its own row."""
    return Segment(start, stop, Sharing.OWN, stop - start, dim, precision, **grid)  # type: ignore[arg-type]


@dataclass(frozen=True)
class FieldPlan:
    """One field: its output dimension and the segments that tile its rows.

    `projection_dim` > 0 stores a (projection_dim, dim) fp16 matrix that maps the pooled prefix to
    the output dimension; 0 pads with zeros.
    """

    name: str
    rows: int
    dim: int
    segments: tuple[Segment, ...]
    projection_dim: int = 0


@dataclass(frozen=True)
class Plan:
    """What the exporter packs: a profile and one FieldPlan per field, in the data's field order."""

    profile: Profile
    fields: tuple[FieldPlan, ...]

    def segments(self) -> Iterable[tuple[FieldPlan, Segment]]:
        return ((field, segment) for field in self.fields for segment in field.segments)

    @property
    def pool(self) -> Segment | None:
        """The segment that stores the pool of all pooled segments; None where there is none."""
        return next((s for _, s in self.segments() if s.sharing.is_pooled), None)

    @property
    def scale_count(self) -> int:
        return 1 + max((s.scale for _, s in self.segments() if s.scale is not None), default=-1)

    def offset_dims(self) -> tuple[int, ...]:
        """The length of every shared offset, by its number."""
        dims: dict[int, int] = {}
        for _, segment in self.segments():
            if segment.offset is not None:
                dims[segment.offset] = max(dims.get(segment.offset, 0), segment.dim)
        return tuple(dims.get(i, 0) for i in range(1 + max(dims, default=-1)))

    @property
    def kept_rows(self) -> tuple[int, ...]:
        """Per field, the rows that need a vocabulary entry: all but a tail that reads row 0."""
        return tuple(_kept_rows(field) for field in self.fields)


@dataclass(frozen=True)
class PlanBytes:
    """The exported tables file, byte by byte. `index` is the directory and the segments' own index bytes."""

    payload: int
    scales: int
    offsets: int
    projections: int
    index: int
    header: int

    @property
    def total(self) -> int:
        return self.payload + self.scales + self.offsets + self.projections + self.index + self.header


def plan_bytes(plan: Plan) -> PlanBytes:
    """Bytes of the exported tables file, without packing anything. Raises ValueError as `check`."""
    check(plan)
    sizes = {
        "offsets": 4 * sum(plan.offset_dims()),
        "scales": 4 * plan.scale_count,
        "projections": 2 * sum(f.projection_dim * f.dim for f in plan.fields),
        "index": directory_bytes(plan) + sum(segment_index_bytes(s) for _, s in plan.segments()),
        "payload": sum(segment_bytes(plan.profile, s) for _, s in plan.segments()),
    }
    return PlanBytes(**sizes, header=header_bytes(sizes))


@dataclass(frozen=True)
class Numbering:
    """Bytes in which a directory tells the scale, offset and chunks of a segment, 0 where it need not.

    Scales need not where the segments that have one take them in turn, 0, 1, 2, ...
    """

    scale: int = 0
    offset: int = 0
    chunks: int = 0

    @staticmethod
    def of(plan: Plan) -> "Numbering":
        scales = [s.scale for _, s in plan.segments() if s.scale is not None]
        offsets = len(plan.offset_dims())
        return Numbering(
            Numbering.scale_bytes(scales),
            number_bytes(offsets) if offsets else 0,
            int(any(s.chunks != 1 for _, s in plan.segments())),
        )

    @staticmethod
    def scale_bytes(scales: Sequence[int]) -> int:
        """Of the scales of all segments that have one."""
        return 0 if list(scales) == list(range(len(scales))) else number_bytes(max(scales))


def directory_bytes(plan: Plan) -> int:
    """Bytes of the plan in the `index` tensor, as `autoembed.directory.encode` writes it."""
    numbering = Numbering.of(plan)
    fields = sum(field_entry_bytes(f.rows, f.dim, f.projection_dim) for f in plan.fields)
    segments = sum(
        segment_entry_bytes(f.rows, f.projection_dim or f.dim, s, numbering) for f, s in plan.segments()
    )
    return directory_header_bytes(len(plan.fields)) + fields + segments


def directory_header_bytes(fields: int) -> int:
    return 3 + varint_bytes(fields)


def field_entry_bytes(rows: int, dim: int, projection_dim: int = 0) -> int:
    return varint_bytes(rows) + varint_bytes(dim) + varint_bytes(projection_dim)


def segment_entry_bytes(field_rows: int, width: int, segment: Segment, numbering: Numbering) -> int:
    """Of a segment of a field that stores vectors of up to `width` numbers; where it ends is no matter."""
    sharing = segment.sharing
    stop = 0 if sharing is Sharing.TAIL else number_bytes(field_rows)
    if not sharing.is_stored:
        return 1 + stop
    numbers = numbering.scale + numbering.offset if segment.scale is not None else 0
    stored = dim_bytes(segment.dim, width) + stored_rows_bytes(sharing, field_rows)
    return 2 + stop + stored + numbers + numbering.chunks


def stored_rows_bytes(sharing: Sharing, field_rows: int) -> int:
    """Of the number of stored rows, 0 where that of ids tells it."""
    if not sharing.is_stored or sharing in (Sharing.OWN, Sharing.TAIL):
        return 0
    few = sharing in (Sharing.HASHED, Sharing.CODEBOOK) or sharing.is_paired  # no more than ids
    return number_bytes(field_rows) if few else 4


def dim_bytes(dim: int, width: int) -> int:
    """Of a stored dimension that does not stand in the byte of the precision."""
    return 0 if dim == width or dim <= SMALL_DIM else number_bytes(width)


def number_bytes(most: int) -> int:
    """1 to 4, in which numbers up to `most` can be written."""
    return max(1, -(-most.bit_length() // 8))


def varint_bytes(number: int) -> int:
    """Of a number in LEB128: seven bits a byte."""
    return max(1, -(-number.bit_length() // 7))


def segment_bytes(profile: Profile, segment: Segment) -> int:
    """Bytes of a segment's rows in the payload; 0 where it stores none."""
    if segment.stored_rows == 0:
        return 0
    return profile.payload_bytes(segment.stored_rows, segment.dim, segment.precision)


def segment_index_bytes(segment: Segment) -> int:
    """Bytes of its own that a segment keeps in the `index` tensor, behind the directory; mostly 0."""
    if segment.sharing is Sharing.LISTED:
        return listed_bytes(segment.rows * segment.chunks, segment.stored_rows)
    if segment.sharing.is_marked:
        return marks_bytes(segment.rows * segment.chunks)
    if segment.sharing is Sharing.SIGNATURE_POOL:
        return SIGNATURE_BYTES * segment.rows
    if segment.sharing is Sharing.CODEBOOK:
        return code_bytes(segment.rows, segment.stored_rows)
    return 0


def placed(plan: Plan) -> Iterator[tuple[int, Segment, int]]:
    """Field index, segment and the byte of the payload at which its rows start, in file order."""
    at = 0
    for index, field in enumerate(plan.fields):
        for segment in field.segments:
            yield index, segment, at
            at += segment_bytes(plan.profile, segment)


def tables_header(sizes: dict[str, int]) -> bytes:
    """What safetensors puts before the tensors: u64 length of the JSON, the JSON, spaces up to 8 bytes.

    `sizes` maps offsets, scales, projections, index, payload to bytes. The order is the one that the
    safetensors library writes: wider types first, then by name.
    """
    text = _header_text(sizes)
    text = text.ljust(_round_up(len(text), 8))
    return len(text).to_bytes(8, "little") + text


def header_bytes(sizes: dict[str, int]) -> int:
    """The length of `tables_header(sizes)`, from the digits of the numbers in it."""
    digits = position = 0
    there = tuple(name for name in TENSORS if sizes[name])
    for name in there:
        end = position + sizes[name]
        digits += len(f"{sizes[name] // TENSORS[name][1]}{position}{end}")
        position = end
    return 8 + _round_up(_header_letters(there) + digits, 8)


@cache
def _header_letters(names: tuple[str, ...]) -> int:
    """Bytes of a header's JSON but for its numbers, which are three a tensor."""
    sizes = {name: TENSORS[name][1] * (name in names) for name in TENSORS}
    position, digits = 0, 0
    for name in names:
        digits += len(f"1{position}{position + sizes[name]}")
        position += sizes[name]
    return len(_header_text(sizes)) - digits


def _header_text(sizes: dict[str, int]) -> bytes:
    header: dict[str, object] = {"__metadata__": FILE_METADATA}
    position = 0
    for name, (dtype, width) in TENSORS.items():
        if not sizes[name]:
            continue
        end = position + sizes[name]
        header[name] = {
            "dtype": dtype,
            "shape": [sizes[name] // width],
            "data_offsets": [position, end],
        }
        position = end
    return json.dumps(header, separators=(",", ":")).encode()


def check(plan: Plan) -> None:
    """Raise ValueError where a plan cannot be stored: it names the field, the segment and the rule."""
    pool = plan.pool
    for field in plan.fields:
        position = columns = 0
        before: Segment | None = None
        for segment in field.segments:
            if segment.sharing is Sharing.TAIL:
                problem = _tail_problem(plan.profile, field, segment, before, columns)
                columns += segment.dim
            else:
                problem = _problem(plan.profile, field, segment, position)
                before, columns = segment, segment.dim
            if segment.sharing.is_pooled:
                problem = problem or _pool_problem(plan.profile, field, segment, pool)
            if problem:
                raise ValueError(f"field {field.name!r}, rows [{segment.start}, {segment.stop}): {problem}")
            position = segment.stop
        if position != field.rows:
            raise ValueError(
                f"field {field.name!r}: segments cover {position} of {field.rows} rows; "
                "they must tile all rows in order"
            )
        stored = max((segment.stored_rows for segment in field.segments), default=0)
        is_large = max(field.rows, stored) >= 2**32
        if is_large or not 0 < field.dim < NONE or not 0 <= field.projection_dim < NONE:
            raise ValueError(
                f"field {field.name!r}: {field.rows} rows of dimension {field.dim}, {stored} of them stored "
                f"together, and a projection of {field.projection_dim} exceed the "
                f"format's limits of {2**32 - 1} rows and dimension {NONE - 1}"
            )
    if plan.scale_count >= NONE or len(plan.offset_dims()) >= NONE:
        raise ValueError(f"a plan holds at most {NONE - 1} scales and offsets; merge segments")


def _problem(profile: Profile, field: FieldPlan, segment: Segment, position: int) -> str:
    width = field.projection_dim or field.dim
    if segment.start != position or segment.stop <= segment.start:
        return f"segments must be non-empty and tile the rows; this one must start at {position}"
    if segment.sharing in (Sharing.OOV, Sharing.ZERO):
        if segment.stored_rows or segment.scale is not None or segment.offset is not None:
            return "rows that read row 0 or zero store no row, scale or offset"
        if segment.chunks != 1:
            return f"only marked vectors are cut into chunks, this segment has {segment.chunks}"
        if (segment.dim, segment.precision, segment.mid_rise) != (0, "fp32", False):
            return "rows that read row 0 or zero have no dimension, precision or grid"
        if segment.sharing is Sharing.OOV and segment.start == 0:
            return "row 0 is the out-of-vocabulary row itself and cannot read itself"
        return ""
    if segment.precision not in profile.precisions:
        return (
            f"profile {profile.name!r} cannot store {segment.precision!r}; "
            f"it knows {', '.join(profile.precisions)}"
        )
    if not 0 < segment.dim <= width:
        return f"the stored dimension {segment.dim} must be in 1..{width}"
    if segment.sharing is Sharing.OWN and segment.stored_rows != segment.rows:
        return f"own rows need stored_rows = {segment.rows}, got {segment.stored_rows}"
    if segment.sharing is Sharing.HASHED and not 0 < segment.stored_rows <= segment.rows:
        return f"hashed rows need 1 <= stored_rows <= {segment.rows}, got {segment.stored_rows}"
    most = min(segment.rows, MAX_CODES)
    if segment.sharing is Sharing.CODEBOOK and not 0 < segment.stored_rows <= most:
        return f"a codebook needs 1 <= stored_rows <= {most}, got {segment.stored_rows}"
    if segment.sharing.is_paired:
        half = segment.stored_rows // 2
        if segment.stored_rows > segment.rows or half * (segment.stored_rows - half) < segment.rows:
            return (
                f"{segment.stored_rows} rows of quotients and remainders must make at least {segment.rows} "
                f"pairs and be no more than the ids themselves"
            )
        if segment.sharing is Sharing.QUOTIENT_CONCATENATE and 2 * segment.dim > width:
            return f"two rows of dimension {segment.dim} behind one another exceed {width}"
    if segment.sharing.is_marked:
        problem = _marked_problem(segment, width)
        if problem:
            return problem
    elif segment.sharing is Sharing.SIGNATURE_POOL:
        if not 1 <= segment.chunks <= MAX_KEYS:
            return f"1..{MAX_KEYS} keys place a block by a signature, this segment asks for {segment.chunks}"
    elif segment.sharing is Sharing.QUOTIENT_PATH:
        problem = _path_problem(segment)
        if problem:
            return problem
    elif segment.chunks != 1:
        return f"only marked vectors are cut into chunks, this segment has {segment.chunks}"
    shared_scale = segment.is_integer and profile.row_scale_bytes == 0
    if shared_scale != (segment.scale is not None):
        return "integer codes have a shared scale exactly where the profile keeps none in the row"
    if segment.offset is not None and not shared_scale:
        return "an offset needs integer codes with a shared scale"
    return ""


def _marked_problem(segment: Segment, width: int) -> str:
    marks = segment.rows * segment.chunks
    if not 1 <= segment.chunks <= MAX_CHUNKS or segment.chunks * segment.dim > width:
        return (
            f"{segment.chunks} chunks of dimension {segment.dim} must be 1..{MAX_CHUNKS} "
            f"and together at most {width}"
        )
    if segment.sharing is Sharing.MARKED_OR_HASHED and segment.chunks != 1:
        return f"an id without a mark reads one hashed row, so chunks must be 1, got {segment.chunks}"
    # with hashed rows there may be one for every id beside its own
    most = 2 * marks if segment.sharing is Sharing.MARKED_OR_HASHED else marks
    if not 0 < segment.stored_rows <= most:
        return f"marked rows need 1 <= stored_rows <= {most}, got {segment.stored_rows}"
    return ""


def _path_problem(segment: Segment) -> str:
    if not 1 <= segment.chunks <= MAX_CHUNKS:
        most = MAX_CHUNKS * HIDDEN_STEP
        return f"networks have {HIDDEN_STEP}..{most} hidden units, not {segment.chunks * HIDDEN_STEP}"
    if segment.precision.startswith("int"):
        return "quotients and networks are floats"
    rows = path_rows(segment.chunks * HIDDEN_STEP, segment.dim)
    if not path_networks(segment.rows, segment.stored_rows, rows):
        stored = segment.stored_rows
        return f"{stored} rows of quotients and of networks of {rows} cannot serve {segment.rows} ids"
    return ""


def _tail_problem(
    profile: Profile, field: FieldPlan, segment: Segment, before: Segment | None, columns: int
) -> str:
    if before is None or before.sharing not in (Sharing.OWN, Sharing.CODEBOOK) or not before.is_integer:
        return "a tail goes on with rows of their own or of a codebook, of integer codes"
    if (segment.start, segment.stop, segment.stored_rows) != (before.stop, before.stop, before.stored_rows):
        return f"a tail goes on with the {before.stored_rows} rows that end at {before.stop}, and has no ids"
    if not 0 < segment.dim <= (field.projection_dim or field.dim) - columns:
        width = field.projection_dim or field.dim
        return f"{segment.dim} columns behind {columns} are not in 1..{width - columns}"
    if not segment.is_integer or segment.precision not in profile.precisions or profile.row_scale_bytes:
        return f"a tail holds integer codes with a shared scale, which profile {profile.name!r} must know"
    if segment.scale is None or segment.offset is not None or segment.chunks != 1:
        return "a tail has a shared scale, no offset, and is one chunk"
    return ""


def _pool_problem(profile: Profile, field: FieldPlan, segment: Segment, pool: Segment | None) -> str:
    assert pool is not None
    if (segment.dim, segment.precision) != (pool.dim, pool.precision):
        return f"all of a pool is read in blocks of {pool.dim} of {pool.precision}"
    if (segment is pool) != (segment.stored_rows > 0):
        return "the first segment that reads the pool stores it, the others store nothing"
    if segment.precision.startswith("int") or segment.offset is not None:
        return "a pool holds floats"
    if profile.row_bytes(segment.dim, segment.precision) * 8 != segment.dim * BITS[segment.precision]:
        return f"profile {profile.name!r} cannot store a pool of blocks of {segment.dim}, it pads rows"
    return "a pool needs no projection" if field.projection_dim else ""


def _kept_rows(field: FieldPlan) -> int:
    kept = field.rows
    for segment in reversed(field.segments):
        if segment.sharing is not Sharing.OOV:
            break
        kept = segment.start
    return kept


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
