"""What a search tells while it runs. `run_study` calls `progress(event)` in its own thread."""

from collections.abc import Callable
from dataclasses import dataclass

from autoembed.record import Role, TrialRecord


@dataclass(frozen=True)
class Best:
    """The best complete candidate within a budget by the validation objective; None where none fits."""

    budget_bytes: int
    candidate: str | None
    value: float | None
    bytes: int | None


@dataclass(frozen=True)
class Standing:
    """How far the study is. `planned` counts trainings, with the repeats expected as of now.

    `eta_seconds` is None until a training has finished; `spent_fte` until the reference has.
    """

    finished: int
    planned: int
    spent_fte: float | None
    eta_seconds: float | None
    best: tuple[Best, ...]


@dataclass(frozen=True)
class StudyStarted:
    """Once per call. `already` trials were finished before, `again` were interrupted and run again."""

    run: str
    objective: str
    budgets_bytes: tuple[int, ...]
    full_bytes: int
    workers: int
    already: int
    again: int
    standing: Standing


@dataclass(frozen=True)
class DataProgress:
    """Preparing the data: the stage and the share of it that is done, and the rows read."""

    stage: str
    done: float
    rows: int


@dataclass(frozen=True)
class TrialStarted:
    number: int
    candidate: str
    method: str
    seed: int
    role: Role


@dataclass(frozen=True)
class TrialProgress:
    """How far a training is. A method may train in several stages; `step` counts within the stage.

    `best_auc` and `best_logloss` are the stage's best validation so far.
    """

    number: int
    stage: str
    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    best_auc: float | None
    best_logloss: float | None


@dataclass(frozen=True)
class TrialEnded:
    """A record was written: complete, rejected by the byte model, or failed."""

    record: TrialRecord
    standing: Standing


@dataclass(frozen=True)
class Notice:
    """Something a person should read: a repaired file, why sampling stopped, how to go on."""

    text: str


@dataclass(frozen=True)
class StudyEnded:
    trials: int
    standing: Standing


Event = DataProgress | StudyStarted | TrialStarted | TrialProgress | TrialEnded | Notice | StudyEnded
Listener = Callable[[Event], None]
