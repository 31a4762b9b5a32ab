"""The record of one trial: what ran, what it cost, what the packed tables measure. Stored as JSON."""

from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["reference", "baseline", "search", "repeat"]
State = Literal["complete", "rejected", "failed"]


@dataclass(frozen=True)
class TrialRecord:
    """One training run of one candidate with one seed.

    `candidate` names the method with its parameters, without the seed: records that share it are
    repeats of one point. Metrics are of the packed tables. `bytes` are `PlanBytes` fields and `total`.
    `fte` is the cost in full-training equivalents: seconds over the seconds of the reference.
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
    samples: int = 0
    steps: int = 0
    fte: float | None = None
    peak_table_bytes: int = 0
    reason: str = ""

    @property
    def total_bytes(self) -> int:
        """Bytes of the exported tables file; 0 where nothing was packed."""
        return self.bytes.get("total", 0)
