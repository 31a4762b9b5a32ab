"""The plan as the `index` tensor of a tables file, and as JSON for people.

The directory is little-endian and packed: a header, one entry per field, then one entry per segment in field
order (docs/format.md). Field names are not in it; they stand in the manifest. The index bytes of the segments
that have some follow it in the tensor.
"""

import struct
from collections.abc import Sequence
from typing import Any

from autoembed.plan import (
    DIRECTORY_VERSION,
    FIELD_ENTRY_BYTES,
    NONE,
    PRECISIONS,
    PROFILES,
    SEGMENT_ENTRY_BYTES,
    FieldPlan,
    Plan,
    Segment,
    Sharing,
    check,
)

_HEADER = struct.Struct("<HHI")
_FIELD = struct.Struct("<IHH")
_SEGMENT = struct.Struct("<IIHBBHH")
_MID_RISE = 4  # flags: sharing in bits 0, 1, 3 and 4, mid-rise grid in bit 2, chunks - 1 in bits 5 to 7
_CHUNKS_AT = 5
_SHARINGS = {(s & 3) | (s & 12) << 1: s for s in Sharing}  # bits of the flags -> sharing
_SHARING_BITS = 0b11011
_PROFILE_NAMES = tuple(PROFILES)  # a profile's number in the file is its place here
PLAN_VERSION = 1


class DirectoryError(ValueError):
    """The index of a tables file does not describe a plan that this version can read."""


def encode(plan: Plan) -> bytes:
    """The plan, without its field names, as the directory that the `index` tensor starts with."""
    parts = [_HEADER.pack(DIRECTORY_VERSION, _PROFILE_NAMES.index(plan.profile.name), len(plan.fields))]
    parts += [_FIELD.pack(len(f.segments), f.dim, f.projection_dim) for f in plan.fields]
    for _, s in plan.segments():
        flags = (s.sharing & 3) | (s.sharing & 12) << 1 | (_MID_RISE if s.mid_rise else 0)
        flags |= (s.chunks - 1) << _CHUNKS_AT
        precision = PRECISIONS.index(s.precision)
        scale, offset = (NONE if number is None else number for number in (s.scale, s.offset))
        parts.append(_SEGMENT.pack(s.stop, s.stored_rows, s.dim, precision, flags, scale, offset))
    return b"".join(parts)


def directory_of(index: memoryview) -> bytes:
    """The directory that the bytes of the `index` tensor start with; all of them where they are cut off."""
    end = _HEADER.size
    if len(index) >= end:
        end += _HEADER.unpack_from(index)[2] * FIELD_ENTRY_BYTES
    if len(index) >= end:
        counts = (entry[0] for entry in _FIELD.iter_unpack(index[_HEADER.size : end]))
        end += SEGMENT_ENTRY_BYTES * sum(counts)
    return bytes(index[:end])


def decode(index: bytes, names: Sequence[str] | None = None) -> Plan:
    """The plan that the directory `index` describes. Without names, fields are called field 0, field 1, ...

    Raises DirectoryError where the bytes are no directory of this version or break a rule of `check`.
    """
    if len(index) < _HEADER.size:
        raise DirectoryError(f"the index holds {len(index)} bytes, fewer than its header of {_HEADER.size}")
    version, profile, field_count = _HEADER.unpack_from(index)
    if version != DIRECTORY_VERSION:
        raise DirectoryError(f"the index has version {version}, this program reads {DIRECTORY_VERSION}")
    if profile >= len(_PROFILE_NAMES):
        raise DirectoryError(f"the index names hardware profile {profile}, known are {len(_PROFILE_NAMES)}")
    if names is not None and len(names) != field_count:
        raise DirectoryError(f"the index holds {field_count} fields, {len(names)} names were given")
    at = _HEADER.size
    if len(index) < at + field_count * FIELD_ENTRY_BYTES:
        raise DirectoryError(f"the index of {len(index)} bytes ends inside its {field_count} field entries")
    entries = [_FIELD.unpack_from(index, at + i * FIELD_ENTRY_BYTES) for i in range(field_count)]
    at += field_count * FIELD_ENTRY_BYTES
    expected = at + SEGMENT_ENTRY_BYTES * sum(count for count, _, _ in entries)
    if len(index) != expected:
        raise DirectoryError(f"the index holds {len(index)} bytes, its field entries ask for {expected}")
    fields = []
    for number, (count, dim, projection_dim) in enumerate(entries):
        segments = _segments(index[at : at + count * SEGMENT_ENTRY_BYTES])
        at += count * SEGMENT_ENTRY_BYTES
        name = f"field {number}" if names is None else names[number]
        rows = segments[-1].stop if segments else 0
        fields.append(FieldPlan(name, rows, dim, tuple(segments), projection_dim))
    plan = Plan(PROFILES[_PROFILE_NAMES[profile]], tuple(fields))
    try:
        check(plan)
    except ValueError as error:
        raise DirectoryError(f"the index describes no valid plan: {error}") from None
    return plan


def _segments(entries: bytes) -> list[Segment]:
    segments = []
    start = 0
    for stop, stored_rows, dim, precision, flags, scale, offset in _SEGMENT.iter_unpack(entries):
        if precision >= len(PRECISIONS) or flags & _SHARING_BITS not in _SHARINGS:
            raise DirectoryError(f"a segment has unknown precision {precision} or flags {flags}")
        segments.append(
            Segment(
                start,
                stop,
                _SHARINGS[flags & _SHARING_BITS],
                stored_rows,
                dim,
                PRECISIONS[precision],
                bool(flags & _MID_RISE),
                None if scale == NONE else scale,
                None if offset == NONE else offset,
                1 + (flags >> _CHUNKS_AT),
            )
        )
        start = stop
    return segments


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
