"""The full-precision model that everything else starts from and is measured against, tuned first.

An untuned reference makes compression look free. Candidates are the user's own settings and changes of one or
two of them, learning rate and penalty on rows. Successive halving
(Jamieson and Talwalkar, arXiv:1502.07943): all are trained for few epochs, the better third for three times
as many, and so on; the last one left is trained in full. Half of the effort goes to the schedule, which shows
only in full trainings: more epochs where the last one allowed was the best, else a gentler cut of the rates,
else patience for one epoch more; what is better is kept and changed further. Selection is on the validation
split alone.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autoembed.data.row_order import RowOrder
from autoembed.ledger import Ledger
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.full_precision import FullPrecision
from autoembed.metrics import Metrics
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import Stats
from autoembed.training import trained_run
from autoembed.training_config import TrainingConfig
from autoembed.training_loop import Diverged, Epoch, Examples, Progress, Run

KEEP = 3  # one of so many candidates goes on, for so many times the epochs
MARGIN = 1e-4  # by which other settings must beat the user's own, in the metric of the training
# learning rate times, penalty on rows: times the user's, or this where the user has none
CHANGES = (
    (1.0, 10.0),
    (3.0, 1.0),
    (1.0, 0.1),
    (0.3, 1.0),
    (3.0, 10.0),
    (1.0, 100.0),
    (0.3, 10.0),
    (3.0, 0.1),
)
FIRST_L2 = 1e-5
LONGER = 1.5  # times the epochs
MOST_TRIED = 20  # trainings that tune one trunk


@dataclass(frozen=True)
class Tried:
    """Settings tried for `epochs` epochs at most, their best validation, and what the trial cost."""

    training: TrainingConfig
    epochs: int
    valid: Metrics | None  # None where it diverged
    cpu_seconds: float
    steps: int


@dataclass(frozen=True)
class Trunk:
    """A trained full-precision model: rows (R, D) of all fields, the network in evaluation mode.

    `ledger` is the cost of the final training alone, `tuning` what was tried before it. `basis_seconds` and
    `basis_cpu_seconds` went into writing it down as the walk needs it (basis.py); they are the walk's.
    """

    rows: Tensor
    network: nn.Module
    training: TrainingConfig
    valid: Metrics
    test: Metrics
    ledger: Ledger
    history: tuple[Epoch, ...]
    tuning: tuple[Tried, ...]
    basis_seconds: float = 0.0
    basis_cpu_seconds: float = 0.0

    def reordered(self, order: RowOrder) -> "Trunk":
        """The same with rows in another order."""
        return replace(self, rows=order.of_table(self.rows))


def train_trunk(
    data: Examples,
    stats: Stats,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    trainings: float = 0.0,
    seed: int,
    device: torch.device | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trunk:
    """Tune with about `trainings` trainings of epochs, 0 for none, and train in full.

    Settings other than the user's are taken only where they are better on the validation split by more than
    MARGIN. Raises Diverged where the final training does.
    """

    def run_of(settings: TrainingConfig) -> Run:
        return trained_run(
            data, stats, FullPrecision(), PROFILES["packed"], model, settings, seed, device, progress
        )

    tuning: list[Tried] = []
    if trainings > 0:
        training = _tuned(training, trainings / 2, run_of, tuning)
    run = run_of(training)
    if trainings > 0:
        run = _scheduled(run, trainings / 2, run_of, tuning)
        training = run.training
    assert isinstance(run.table, FixedPlanTable)
    ledger = run.meter.read()
    valid, test = (run.evaluate(run.table, split) for split in ("valid", "test"))
    rows = run.table.rows.weight.detach().clone()
    network = run.network.eval()
    return Trunk(rows, network, training, valid, test, ledger, tuple(run.history), tuple(tuning))


def _tuned(
    training: TrainingConfig, trainings: float, run_of: Callable[[TrainingConfig], Run], tuning: list[Tried]
) -> TrainingConfig:
    """The settings left by successive halving within about `trainings` times the user's epochs."""
    rungs, count = _rungs(trainings * training.epochs, training.epochs)
    candidates = candidates_of(training)[:count]

    def loss(tried: Tried) -> float:  # the user's own settings are given a start
        return _loss(tried.valid, training.metric) - (MARGIN if tried.training is training else 0.0)

    for epochs in rungs:
        results = [_try(settings, epochs, run_of) for settings in candidates]
        tuning.extend(results)
        candidates = [tried.training for tried in sorted(results, key=loss)][: max(1, len(results) // KEEP)]
    return candidates[0]


def _scheduled(
    run: Run, trainings: float, run_of: Callable[[TrainingConfig], Run], tuning: list[Tried]
) -> Run:
    """The best of `run` and full trainings under other schedules, at most `trainings` times its epochs."""
    left = trainings * run.training.epochs
    seen = [run.training]
    while len(tuning) < MOST_TRIED and (changed := next(_schedules(run, left, seen), None)) is not None:
        seen.append(changed)
        left -= changed.epochs
        try:
            other = run_of(changed)
        except Diverged:
            tuning.append(Tried(changed, changed.epochs, None, 0.0, 0))
            continue
        metric = run.training.metric
        if _loss(_best(other), metric) < _loss(_best(run), metric) - MARGIN:
            run, other = other, run
        tuning.append(_tried(other.training, other))
    return run


def _schedules(run: Run, epochs: float, seen: list[TrainingConfig]) -> Iterator[TrainingConfig]:
    """Other schedules of at most so many epochs that were not seen, the most promising first."""
    training = run.training
    changes: list[dict[str, float]] = []
    if run.history[-1].valid == _best(run):
        changes.append({"epochs": math.ceil(LONGER * training.epochs)})
    if training.cut_factor < 1.0:
        changes.append({"cut_factor": min(1.0, training.cut_factor * KEEP)})
    changes.append({"patience": training.patience + 1, "cut_patience": training.cut_patience + 1})
    for change in changes:
        changed = training.model_copy(update=change)
        if changed.epochs <= epochs and changed not in seen:
            yield changed


def _rungs(budget: float, epochs: int) -> tuple[tuple[int, ...], int]:
    """Epochs of every rung, and how many candidates start, to cost about `budget` epochs; at least two."""
    short = max(1, epochs // (KEEP * KEEP))
    longer = min(epochs, KEEP * short)
    count = 1 + len(CHANGES)
    while count > 2 and count * short + count // KEEP * longer > budget:
        count -= 1
    return (short, longer) if count // KEEP > 1 else (short,), count


def candidates_of(training: TrainingConfig) -> list[TrainingConfig]:
    """The user's settings first, then changes of them, the most promising first."""
    found = [training]
    table_rate = training.table_learning_rate
    for rate, penalty in CHANGES:
        l2 = training.l2_rows * penalty if training.l2_rows else FIRST_L2 * penalty
        changed = {
            "learning_rate": training.learning_rate * rate,
            "table_learning_rate": table_rate and table_rate * rate,
            "l2_rows": training.l2_rows if penalty == 1.0 else l2,
        }
        found.append(training.model_copy(update=changed))
    return found


def _try(settings: TrainingConfig, epochs: int, run_of: Callable[[TrainingConfig], Run]) -> Tried:
    short = settings.model_copy(update={"epochs": epochs})
    try:
        run = run_of(short)
    except Diverged:
        return Tried(settings, epochs, None, 0.0, 0)
    return replace(_tried(settings, run), epochs=epochs)


def _tried(settings: TrainingConfig, run: Run) -> Tried:
    ledger = run.meter.read()
    return Tried(settings, settings.epochs, _best(run), ledger.cpu_seconds, ledger.steps)


def _best(run: Run) -> Metrics:
    """The validation of the epoch that the run keeps."""
    return min((epoch.valid for epoch in run.history), key=lambda v: _loss(v, run.training.metric))


def _loss(valid: Metrics | None, metric: str) -> float:
    """What is to be small; infinite where training diverged."""
    if valid is None:
        return math.inf
    return -valid.auc if metric == "auc" else valid.logloss
