"""Points of a study: the trials of one candidate over its seeds, with intervals and paired losses."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from autoembed.record import NO_POINT, TrialRecord
from autoembed.statistics import Interval, mean_interval, paired_interval

Objective = Literal["auc", "logloss"]
Split = Literal["valid", "test"]
METRICS = ("valid_auc", "valid_logloss", "test_auc", "test_logloss")


@dataclass(frozen=True)
class Repeat:
    """One seed of a point. `metrics` maps the names in METRICS to values, where measured."""

    trial: int
    seed: int
    bytes: int
    metrics: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Point:
    """A candidate as it stands in the front: bytes, and metrics over its seeds.

    `bytes` is the largest tables file of its seeds, because a budget must hold for each of them;
    `parts` splits that file (the fields of PlanBytes) and `vocabulary_bytes` comes on top.
    `metrics` are intervals over seeds, by the names in METRICS.
    `losses` are differences to the full-precision reference of the same seed, positive where the
    point is worse; only seeds that both have count, and it is empty where there is none.
    `fte` is the cost of all its seeds in full-training equivalents, None where no reference was timed.
    """

    candidate: str
    method: str
    parameters: dict[str, Any]
    role: Literal["reference", "baseline", "search"]
    bytes: int
    parts: dict[str, int]
    vocabulary_bytes: int
    repeats: tuple[Repeat, ...]
    metrics: dict[str, Interval]
    losses: dict[str, Interval]
    seconds: float
    fte: float | None

    @property
    def label(self) -> str:
        """`frequency_cut keep=0.126 bits=8`: the candidate as people read it, numbers cut to 3 digits."""
        parameters = (f"{name}={_short(value)}" for name, value in self.parameters.items())
        return " ".join([self.method, *parameters])

    @property
    def trials(self) -> tuple[int, ...]:
        return tuple(repeat.trial for repeat in self.repeats)

    def value(self, split: Split, objective: Objective) -> float:
        """Mean over seeds. Raises ValueError where it was not measured."""
        return self.interval(split, objective).mean

    def interval(self, split: Split, objective: Objective) -> Interval:
        """Mean and t-interval over seeds. Raises ValueError where it was not measured."""
        try:
            return self.metrics[f"{split}_{objective}"]
        except KeyError:
            raise ValueError(
                f"{self.label}: trials {list(self.trials)} have no {split} {objective}; run them again"
            ) from None

    def quality(self, split: Split, objective: Objective) -> float:
        """The mean over seeds, larger is better: AUC, or minus logloss."""
        return sign(objective) * self.value(split, objective)


def sign(objective: Objective) -> int:
    """+1 where larger values are better (auc), -1 where smaller ones are (logloss)."""
    return 1 if objective == "auc" else -1


def make_points(records: Iterable[TrialRecord]) -> tuple[Point, ...]:
    """Group the complete trials by candidate, in the order of bytes, then of trial numbers.

    A candidate that ran twice with one seed counts once, with its first trial. Rejected and failed
    trials are no points, nor are those that were trained for few epochs only, or anew in vain.
    """
    whole = (r for r in records if r.state == "complete" and r.role not in NO_POINT)
    complete = sorted(whole, key=lambda r: r.number)
    groups: dict[str, dict[int, TrialRecord]] = {}
    for record in complete:
        groups.setdefault(record.candidate, {}).setdefault(record.seed, record)
    reference = reference_trials(complete)
    points = [_point(list(group.values()), reference) for group in groups.values()]
    return tuple(sorted(points, key=lambda point: (point.bytes, point.trials[0])))


def reference_trials(records: Iterable[TrialRecord]) -> dict[int, TrialRecord]:
    """Seed -> the first complete trial of the full-precision reference with that seed."""
    complete = sorted((r for r in records if r.state == "complete"), key=lambda r: r.number)
    # a reference that was trained again has a larger number than its repeats
    candidate = next((r.candidate for r in complete if r.role == "reference"), None)
    trials: dict[int, TrialRecord] = {}
    for record in complete:
        if record.candidate == candidate:
            trials.setdefault(record.seed, record)
    return trials


def trial_fte(record: TrialRecord, reference: dict[int, TrialRecord]) -> float | None:
    """Cost in full-training equivalents: over the mean cost of the reference's seeds, else as recorded.

    The record was written when the reference had one seed; on a busy machine one timing says little.
    """
    costs = [trial.cost for trial in reference.values()]
    mean_cost = sum(costs) / len(costs) if costs else 0.0
    return record.cost / mean_cost if mean_cost > 0 and record.cost > 0 else record.fte


def _point(records: Sequence[TrialRecord], reference: dict[int, TrialRecord]) -> Point:
    largest = max(records, key=lambda r: r.total_bytes)
    costs = [trial_fte(record, reference) for record in records]
    repeats = tuple(
        Repeat(r.number, r.seed, r.total_bytes, _metrics(r), r.seconds)
        for r in sorted(records, key=lambda r: r.number)
    )
    return Point(
        candidate=records[0].candidate,
        method=records[0].method,
        parameters=records[0].parameters,
        role=_role(records, reference),
        bytes=largest.total_bytes,
        parts={name: size for name, size in largest.bytes.items() if name != "total"},
        vocabulary_bytes=max(r.vocabulary_bytes for r in records),
        repeats=repeats,
        metrics={
            name: mean_interval([repeat.metrics[name] for repeat in repeats])
            for name in METRICS
            if all(name in repeat.metrics for repeat in repeats)
        },
        losses=_losses(repeats, {seed: _metrics(trial) for seed, trial in reference.items()}),
        seconds=sum(r.seconds for r in records),
        fte=None if None in costs else sum(cost for cost in costs if cost is not None),
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _role(
    records: Sequence[TrialRecord], reference: dict[int, TrialRecord]
) -> Literal["reference", "baseline", "search"]:
    if any(trial.candidate == records[0].candidate for trial in reference.values()):
        return "reference"
    # a repeat takes the role of the trial that it repeats
    return "baseline" if any(r.role in ("baseline", "reference") for r in records) else "search"


def _metrics(record: TrialRecord) -> dict[str, float]:
    values = {name: getattr(record, name) for name in METRICS}
    return {name: value for name, value in values.items() if value is not None}


def _losses(repeats: Sequence[Repeat], reference: dict[int, dict[str, float]]) -> dict[str, Interval]:
    losses = {}
    for name in METRICS:
        pairs = [
            (repeat.metrics[name], reference[repeat.seed][name])
            for repeat in repeats
            if name in repeat.metrics and name in reference.get(repeat.seed, {})
        ]
        if pairs:
            mine, theirs = zip(*pairs, strict=True)
            losses[name] = (
                paired_interval(theirs, mine) if name.endswith("_auc") else paired_interval(mine, theirs)
            )
    return losses
