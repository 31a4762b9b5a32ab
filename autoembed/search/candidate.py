"""Train one candidate of a study and keep it in its trial's folder: what a worker does for a trial."""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from autoembed.export.candidate import save_candidate
from autoembed.methods import make_method
from autoembed.record import write_json
from autoembed.search.folder import Assignment, RunFolder
from autoembed.search.inputs import Inputs, open_inputs
from autoembed.search.study import StudyConfig, read_config
from autoembed.training import Progress, train
from autoembed_kernels.native.loader import library


def train_candidate(
    run: Path, assignment: Assignment, progress: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Train, pack, save; returns the measured fields of a TrialRecord.

    Raises Diverged, ValueError where the validation metrics are no numbers, and whatever the method does.
    """
    config, inputs = opened(run)
    training = config.training
    if assignment.epochs is not None:
        training = training.model_copy(update={"epochs": min(assignment.epochs, training.epochs)})
    trained = train(
        inputs.data,
        inputs.stats,
        make_method(assignment.method, assignment.parameters),
        inputs.spec.profile,
        config.model,
        training,
        seed=assignment.seed,
        progress=lambda report: progress(summary(report)),
    )
    valid, test = trained.valid, trained.test
    if not (math.isfinite(valid.auc) and math.isfinite(valid.logloss)):
        raise ValueError(f"the validation metrics are {valid}; they must be numbers to compare candidates")
    folder = RunFolder(run).trial(assignment.number)
    checksums = save_candidate(folder, trained.packed, trained.network)
    write_json(folder / "history.json", [_finite(asdict(epoch)) for epoch in trained.history])
    kept = trained.packed.plan.kept_rows
    return {
        "bytes": {**asdict(trained.bytes), "total": trained.bytes.total},
        "vocabulary_bytes": sum(
            inputs.data.vocabulary(field).truncated(rows).nbytes for field, rows in enumerate(kept)
        ),
        "valid_auc": valid.auc,
        "valid_logloss": valid.logloss,
        "test_auc": test.auc if math.isfinite(test.auc) else None,
        "test_logloss": test.logloss if math.isfinite(test.logloss) else None,
        "seconds": trained.ledger.seconds,
        "cost_seconds": trained.ledger.cost_seconds(on_cpu=not torch.cuda.is_available()),
        "samples": trained.ledger.samples,
        "steps": trained.ledger.steps,
        "peak_table_bytes": trained.ledger.peak_table_bytes,
        "packing_difference": trained.packing_difference,
        "checksums": checksums,
    }


@lru_cache(maxsize=1)
def opened(run: Path) -> tuple[StudyConfig, Inputs]:
    """Once per worker: the data stays mapped from trial to trial."""
    config = read_config(run)
    warm_up()
    return config, open_inputs(config, run)


def warm_up() -> None:
    """The kernels' library, compiled or read, and one step of nothing, before anything is timed.

    The first optimizer of a process imports for a second or more, compiling takes a minute, and the first
    trial is the reference, whose seconds every cost is divided by.
    """
    library()
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(layer.parameters(), fused=True)
    layer(torch.zeros(1, 1)).sum().backward()
    optimizer.step()


def summary(report: Progress) -> dict[str, Any]:
    """What `TrialProgress` tells, as JSON holds it."""
    best = report.best
    return {
        "stage": report.stage,
        "epoch": report.epoch,
        "epochs": report.epochs,
        "step": report.step,
        "steps_per_epoch": report.steps_per_epoch,
        "best_auc": best.auc if best and math.isfinite(best.auc) else None,
        "best_logloss": best.logloss if best and math.isfinite(best.logloss) else None,
    }


def _finite(values: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(values, dict):
        return {name: _finite(value) for name, value in values.items()}
    return None if isinstance(values, float) and not math.isfinite(values) else values
