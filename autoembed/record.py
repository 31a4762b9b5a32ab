"""The record of one trial: what ran, what it cost, what the packed tables measure. Stored as JSON."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from autoembed.damage import Checksums
from autoembed.files import write_file

Role = Literal["reference", "baseline", "search", "short", "repeat", "aside"]
NO_POINT: tuple[Role, ...] = ("short", "aside")  # trials that cost, and are no points
State = Literal["complete", "rejected", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One training run of one candidate with one seed.

    `candidate` names the method with its parameters, without the seed: records that share it are
    repeats of one point. Metrics are of the packed tables. `bytes` are `PlanBytes` fields and `total`.
    `seconds` are wall clock. `cost_seconds` are what costs are counted in: processor seconds on a CPU,
    where other programs stretch the clock, wall seconds on a GPU. `fte` is the cost in full-training
    equivalents: cost over the cost of the reference.
    `packing_difference`: the largest change of a validation probability by packing the trained table.
    `checksums` are of the tables and network files beside the record, {} in records of earlier versions.
    A trial of role "short" was trained for few epochs, to see whether it deserves more; one of role "aside"
    is a point trained anew that became no better. They cost, and are no points.
    A rejected trial was refused by the byte model before training; `reason` says why, as for a
    failed one.
    """

    number: int
    candidate: str
    method: str
    parameters: dict[str, Any]
    seed: int
    role: Role
    state: State
    bytes: dict[str, int] = field(default_factory=dict)
    vocabulary_bytes: int = 0
    valid_auc: float | None = None
    valid_logloss: float | None = None
    test_auc: float | None = None
    test_logloss: float | None = None
    seconds: float = 0.0
    cost_seconds: float = 0.0
    samples: int = 0
    steps: int = 0
    fte: float | None = None
    peak_table_bytes: int = 0
    packing_difference: float | None = None
    checksums: Checksums = field(default_factory=dict)
    reason: str = ""

    @property
    def cost(self) -> float:
        """Seconds that count as the cost of the training: `cost_seconds`, or the clock's where absent."""
        return self.cost_seconds or self.seconds

    @property
    def total_bytes(self) -> int:
        """Bytes of the exported tables file; 0 where nothing was packed."""
        return self.bytes.get("total", 0)


def write_record(record: TrialRecord, path: Path) -> None:
    """Write a record so that `path` either holds all of it or does not change."""
    write_json(path, asdict(record))


def read_record(path: Path) -> TrialRecord:
    """Read what `write_record` wrote. Raises ValueError naming the file where it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        unknown = set(content) - {item.name for item in fields(TrialRecord)}
        if unknown:
            raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
        return TrialRecord(**content)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not a trial record of this version ({error}); "
            f"remove that file to have this trial run again"
        ) from None


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one step: a reader sees the old file or all of the new one."""
    write_file(path, [(json.dumps(content, indent=1, allow_nan=False) + "\n").encode()])
