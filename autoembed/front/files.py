"""The front as files: front.json, which reads back to an equal record, and front.csv."""

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from autoembed.front.pareto import HeldOutFronts, ReferencePoint
from autoembed.front.pick import Pick
from autoembed.front.point import METRICS, Point, Repeat
from autoembed.front.record import Answer, Cost, FrontRecord
from autoembed.statistics import Interval

VERSION = 1
PARTS = ("payload", "scales", "offsets", "projections", "index", "header")


def to_json(record: FrontRecord) -> str:
    """front.json. A pick names its candidate; `from_json` gives an equal record back."""
    content = {"version": VERSION, **asdict(record)}
    for name in ("budgets", "iso_accuracy", "iso_memory"):
        content[name] = [{**asdict(a), "pick": _name_pick(a.pick)} for a in getattr(record, name)]
    content["knee"] = _name_pick(record.knee)
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def from_json(text: str) -> FrontRecord:
    """Read `to_json`. Raises ValueError for another version."""
    content = json.loads(text)
    version = content.pop("version", None)
    if version != VERSION:
        raise ValueError(
            f"this front file has version {version}, expected {VERSION}; make it again from the run folder"
        )
    points = {entry["candidate"]: _read_point(entry) for entry in content["points"]}

    def read_pick(entry: dict[str, Any] | None) -> Pick | None:
        return None if entry is None else Pick(points[entry["candidate"]], entry["trial"], entry["reason"])

    for name in ("budgets", "iso_accuracy", "iso_memory"):
        content[name] = tuple(Answer(a["asked"], read_pick(a["pick"]), a["problem"]) for a in content[name])
    held_out = content["held_out"]
    if held_out:
        content["held_out"] = HeldOutFronts(
            **{
                **held_out,
                "optimistic": tuple(held_out["optimistic"]),
                "pessimistic": tuple(held_out["pessimistic"]),
                "reference": held_out["reference"] and ReferencePoint(**held_out["reference"]),
            }
        )
    content |= {
        "points": tuple(points.values()),
        "front": tuple(content["front"]),
        "knee": read_pick(content["knee"]),
        "reference_point": content["reference_point"] and ReferencePoint(**content["reference_point"]),
        "cost": Cost(**content["cost"]),
    }
    return FrontRecord(**content)


COLUMNS = (
    "candidate", "method", "role", "on_front", "seeds", "trials", "bytes", "ratio", "vocabulary_bytes",
    *(f"{part}_bytes" for part in PARTS),
    *(f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")),
    *(f"{name}_loss{end}" for name in METRICS for end in ("", "_low", "_high")),
    "seconds", "fte", "parameters",
)  # fmt: skip


def to_csv(record: FrontRecord) -> str:
    """front.csv: one line per point in the order of bytes, columns as in COLUMNS, empty where unknown."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for point in record.points:
        writer.writerow(_csv_row(record, point))
    return text.getvalue()


def _csv_row(record: FrontRecord, point: Point) -> dict[str, object]:
    row: dict[str, object] = {
        "candidate": point.candidate,
        "method": point.method,
        "role": point.role,
        "on_front": int(point.candidate in record.front),
        "seeds": len(point.repeats),
        "trials": " ".join(map(str, point.trials)),
        "bytes": point.bytes,
        "ratio": f"{record.reference.bytes / point.bytes:.6g}" if record.reference else None,
        "vocabulary_bytes": point.vocabulary_bytes,
        "seconds": round(point.seconds, 3),
        "fte": point.fte,
        "parameters": json.dumps(point.parameters, sort_keys=True),
    }
    row |= {f"{part}_bytes": point.parts.get(part) for part in PARTS}
    for suffix, intervals in (("", point.metrics), ("_loss", point.losses)):
        for name, interval in intervals.items():
            row |= {
                f"{name}{suffix}": interval.mean,
                f"{name}{suffix}_low": interval.low,
                f"{name}{suffix}_high": interval.high,
            }
    return row


def _name_pick(pick: Pick | None) -> dict[str, object] | None:
    return (
        None
        if pick is None
        else {"candidate": pick.point.candidate, "trial": pick.trial, "reason": pick.reason}
    )


def _read_point(entry: dict[str, Any]) -> Point:
    return Point(
        **{
            **entry,
            "repeats": tuple(Repeat(**repeat) for repeat in entry["repeats"]),
            "metrics": {name: Interval(**interval) for name, interval in entry["metrics"].items()},
            "losses": {name: Interval(**interval) for name, interval in entry["losses"].items()},
        }
    )
