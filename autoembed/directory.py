"""The plan as the `index` tensor of a tables file, and as JSON for people.

The directory is little-endian and packed: a header, then every field, its entry before those of its segments
(docs/format.md). It is small, since small tables have one, too: numbers take as many bytes as they need, and
what other numbers tell is left out. Field names are not in it; they stand in the manifest. The index bytes of
the segments that have some follow it in the tensor.
"""

from collections.abc import Sequence
from typing import Any

from autoembed.plan import (
    PRECISIONS,
    PROFILES,
    SMALL_DIM,
    FieldPlan,
    Numbering,
    Plan,
    Profile,
    Segment,
    Sharing,
    check,
    dim_bytes,
    number_bytes,
    stored_rows_bytes,
    varint_bytes,
)

DIRECTORY_VERSION = 2
PLAN_VERSION = 1
_MID_RISE, _GOES_ON = 16, 32  # flags behind the sharing: the grid; a tail follows
_OFFSET_AT, _CHUNKS = 3, 64  # numbering: bytes of a scale in bits 0 to 2, of an offset in 3 to 5, chunks in 6
_NUMBER_BYTES = 2  # of a scale's or an offset's number at most, for they are below NONE
_PROFILE_NAMES = tuple(PROFILES)  # a profile's number in the file is its place here


class DirectoryError(ValueError):
    """The index of a tables file does not describe a plan that this version can read."""


def encode(plan: Plan) -> bytes:
    """The plan, without its field names, as the directory that the `index` tensor starts with."""
    numbering = Numbering.of(plan)
    told = numbering.scale | numbering.offset << _OFFSET_AT | _CHUNKS * numbering.chunks
    out = bytearray((DIRECTORY_VERSION, _PROFILE_NAMES.index(plan.profile.name), told))
    out += _varint(len(plan.fields))
    for field in plan.fields:
        out += _varint(field.rows) + _varint(field.dim) + _varint(field.projection_dim)
        followers = (*field.segments, None)[1:]
        for segment, follower in zip(field.segments, followers, strict=True):
            is_last = follower is None or follower.sharing is not Sharing.TAIL
            out += _entry(field, segment, numbering, 0 if is_last else _GOES_ON)
    return bytes(out)


def _entry(field: FieldPlan, s: Segment, numbering: Numbering, goes_on: int) -> bytes:
    out = bytearray((s.sharing | _MID_RISE * s.mid_rise | goes_on,))
    width = field.projection_dim or field.dim
    if s.sharing.is_stored:
        small = 0 if s.dim == width else min(s.dim, SMALL_DIM + 1)
        out.append(PRECISIONS.index(s.precision) | small << 4)
        out += s.dim.to_bytes(dim_bytes(s.dim, width), "little") if small > SMALL_DIM else b""
    if s.sharing is not Sharing.TAIL:
        out += s.stop.to_bytes(number_bytes(field.rows), "little")
    if size := stored_rows_bytes(s.sharing, field.rows):
        out += s.stored_rows.to_bytes(size, "little")
    if s.scale is not None:
        out += s.scale.to_bytes(numbering.scale, "little") if numbering.scale else b""
        if numbering.offset:
            no_offset = 256**numbering.offset - 1
            out += (no_offset if s.offset is None else s.offset).to_bytes(numbering.offset, "little")
    if s.sharing.is_stored and numbering.chunks:
        out.append(s.chunks - 1)
    return bytes(out)


def _varint(number: int) -> bytes:
    """LEB128."""
    last = varint_bytes(number) - 1
    return bytes((number >> 7 * at & 127) | (128 if at < last else 0) for at in range(last + 1))


class _Reader:
    """Numbers one behind the other. Raises DirectoryError where the bytes end."""

    def __init__(self, index: memoryview | bytes) -> None:
        self.index, self.at = index, 0

    def number(self, size: int) -> int:
        self.at += size
        if self.at > len(self.index):
            raise DirectoryError(f"the index of {len(self.index)} bytes ends inside its directory")
        return int.from_bytes(self.index[self.at - size : self.at], "little")

    def varint(self) -> int:
        found = 0
        for at in range(5):
            byte = self.number(1)
            found |= (byte & 127) << 7 * at
            if byte < 128:
                return found
        raise DirectoryError("the index holds a number of fields, rows or dimensions beyond 2^35")


def read_directory(index: memoryview | bytes, names: Sequence[str] | None = None) -> tuple[Plan, int]:
    """The plan that the bytes of the `index` tensor start with, and how many they are.

    Without names, fields are called field 0, field 1, ... Raises DirectoryError where the bytes are no
    directory of this version, are not as `encode` writes them or break a rule of `check`.
    """
    reader = _Reader(index)
    version, profile, told = reader.number(1), reader.number(1), reader.number(1)
    if version != DIRECTORY_VERSION:
        raise DirectoryError(f"the index has version {version}, this program reads {DIRECTORY_VERSION}")
    if profile >= len(_PROFILE_NAMES):
        raise DirectoryError(f"the index names hardware profile {profile}, known are {len(_PROFILE_NAMES)}")
    field_count = reader.varint()
    if names is not None and len(names) != field_count:
        raise DirectoryError(f"the index holds {field_count} fields, {len(names)} names were given")
    numbering = Numbering(told & 7, told >> _OFFSET_AT & 7, int(bool(told & _CHUNKS)))
    if max(numbering.scale, numbering.offset) > _NUMBER_BYTES or told > 2 * _CHUNKS - 1:
        raise DirectoryError(f"the index numbers scales and offsets in an unknown way, {told}")
    entries = _Entries(reader, PROFILES[_PROFILE_NAMES[profile]], numbering)
    fields = [
        entries.field(f"field {number}" if names is None else names[number]) for number in range(field_count)
    ]
    plan = Plan(entries.profile, tuple(fields))
    try:
        check(plan)
    except ValueError as error:
        raise DirectoryError(f"the index describes no valid plan: {error}") from None
    if encode(plan) != bytes(index[: reader.at]):
        raise DirectoryError("the index describes its plan otherwise than this program would")
    return plan, reader.at


def decode(index: bytes, names: Sequence[str] | None = None) -> Plan:
    """The plan that the directory `index`, with nothing behind it, describes; as `read_directory`."""
    plan, size = read_directory(index, names)
    if size != len(index):
        raise DirectoryError(f"the index holds {len(index)} bytes, its directory {size}")
    return plan


class _Entries:
    """Entries of a directory, one behind the other."""

    def __init__(self, reader: _Reader, profile: Profile, numbering: Numbering) -> None:
        self.reader, self.profile, self.numbering = reader, profile, numbering
        self.next_scale = 0

    def field(self, name: str) -> FieldPlan:
        rows, dim, projection_dim = (self.reader.varint() for _ in range(3))
        segments: list[Segment] = []
        goes_on, stop = False, 0
        while goes_on or stop < rows:
            segment, goes_on = self._segment(rows, projection_dim or dim, segments)
            # each has ids, or few bytes would be many segments
            if segment.sharing is not Sharing.TAIL and not stop < segment.stop <= rows:
                raise DirectoryError(f"a segment of {name} ends at {segment.stop} of {rows} rows")
            segments.append(segment)
            stop = segment.stop
        return FieldPlan(name, rows, dim, tuple(segments), projection_dim)

    def _segment(self, rows: int, width: int, before: Sequence[Segment]) -> tuple[Segment, bool]:
        """The next one of a field, and whether a tail follows it."""
        number, start = self.reader.number, before[-1].stop if before else 0
        flags = number(1)
        goes_on, code = bool(flags & _GOES_ON), flags & ~(_MID_RISE | _GOES_ON)
        if code not in tuple(Sharing):
            raise DirectoryError(f"a segment has unknown flags {flags}")
        sharing = Sharing(code)
        if not sharing.is_stored:
            return Segment(start, number(number_bytes(rows)), sharing), goes_on
        form = number(1)
        if form & 15 >= len(PRECISIONS):
            raise DirectoryError(f"a segment has unknown precision {form & 15}")
        precision, dim = PRECISIONS[form & 15], form >> 4 or width
        if dim > SMALL_DIM and form >> 4:
            dim = number(number_bytes(width))
        stop = start if sharing is Sharing.TAIL else number(number_bytes(rows))
        if size := stored_rows_bytes(sharing, rows):
            stored = number(size)
        else:
            stored = stop - start if sharing is Sharing.OWN else before[-1].stored_rows if before else 0
        scale = offset = None
        if stored and precision.startswith("int") and not self.profile.row_scale_bytes:
            scale = number(self.numbering.scale) if self.numbering.scale else self.next_scale
            self.next_scale += 1
            offset = number(self.numbering.offset) if self.numbering.offset else None
            offset = None if offset == 256**self.numbering.offset - 1 else offset
        chunks = 1 + number(self.numbering.chunks) if self.numbering.chunks else 1
        grid = (bool(flags & _MID_RISE), scale, offset, chunks)
        return Segment(start, stop, sharing, max(stored, 0), dim, precision, *grid), goes_on


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain JSON values; `plan_from_json` reads it back."""
    return {
        "version": PLAN_VERSION,
        "profile": plan.profile.name,
        "fields": [
            {
                "name": f.name,
                "rows": f.rows,
                "dim": f.dim,
                "projection_dim": f.projection_dim,
                "segments": [_segment_json(s) for s in f.segments],
            }
            for f in plan.fields
        ],
    }


def plan_from_json(content: dict[str, Any]) -> Plan:
    """The plan written by `plan_json`. Raises ValueError where it is none, or breaks a rule of `check`."""
    try:
        if content["version"] != PLAN_VERSION:
            raise ValueError(f"the plan has version {content['version']}, this program reads {PLAN_VERSION}")
        fields = []
        for field in content["fields"]:
            starts = [0, *(s["stop"] for s in field["segments"])]
            segments = tuple(
                Segment(
                    start,
                    s["stop"],
                    Sharing[s["sharing"].upper()],
                    s.get("stored_rows", 0),
                    s.get("dim", 0),
                    s.get("precision", "fp32"),
                    s.get("mid_rise", False),
                    s.get("scale"),
                    s.get("offset"),
                    s.get("chunks", 1),
                )
                for start, s in zip(starts[:-1], field["segments"], strict=True)
            )
            fields.append(
                FieldPlan(field["name"], field["rows"], field["dim"], segments, field["projection_dim"])
            )
        plan = Plan(PROFILES[content["profile"]], tuple(fields))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is not a plan: {type(error).__name__}: {error}") from None
    check(plan)
    return plan


def _segment_json(segment: Segment) -> dict[str, Any]:
    """Only what differs from a segment that stores nothing, so that people can read it."""
    values: dict[str, Any] = {"stop": segment.stop, "sharing": segment.sharing.name.lower()}
    default = Segment(0, 0)
    for name in ("stored_rows", "dim", "precision", "mid_rise", "scale", "offset", "chunks"):
        value = getattr(segment, name)
        if value != getattr(default, name):
            values[name] = value
    return values
