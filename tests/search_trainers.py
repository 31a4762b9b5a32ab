"""Stand-ins for training, for tests of the search: they need no torch and take milliseconds."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoembed.search.folder import Assignment

Progress = Callable[[dict[str, Any]], None]
SECONDS = {"full_precision": 2.0}  # of a training; every other one takes 1.0


def train(run: Path, assignment: Assignment, progress: Progress) -> dict[str, Any]:
    """More bits are better, a fraction of the rows is worse; the seed moves the last digits."""
    bits = assignment.parameters.get("bits", 32)
    keep = assignment.parameters.get("keep", 1.0)
    progress(
        dict(stage="learn", epoch=1, epochs=1, step=3, steps_per_epoch=3, best_auc=0.6, best_logloss=0.6)
    )
    auc = 0.7 - 0.1 / bits - 0.05 * (1 - keep) + 0.0001 * assignment.seed
    total = int(1000 + 300 * bits * keep)
    with (run / "trained.log").open("a") as log:
        log.write(f"{assignment.number}\n")
    return {
        "bytes": {"payload": total - 400, "header": 400, "total": total},
        "valid_auc": auc,
        "valid_logloss": 1 - auc,
        "test_auc": auc - 0.01,
        "test_logloss": 1 - auc + 0.01,
        "seconds": SECONDS.get(assignment.method, 1.0),
        "samples": 100,
        "steps": 10,
    }


def slow_train(run: Path, assignment: Assignment, progress: Progress) -> dict[str, Any]:
    with (run / "workers.pid").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.1)
    return train(run, assignment, progress)


def fail_at_4_bits(run: Path, assignment: Assignment, progress: Progress) -> dict[str, Any]:
    if assignment.parameters.get("bits") == 4:
        raise ArithmeticError("the loss is nan")
    return train(run, assignment, progress)


def die_at_4_bits(run: Path, assignment: Assignment, progress: Progress) -> dict[str, Any]:
    if assignment.parameters.get("bits") == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return train(run, assignment, progress)


def fail_at_full_precision(run: Path, assignment: Assignment, progress: Progress) -> dict[str, Any]:
    if assignment.method == "full_precision":
        raise ArithmeticError("the loss is nan")
    return train(run, assignment, progress)


def grow_beyond(run: Path, assignment: Assignment, progress: Progress) -> dict[str, Any]:
    """As a method that learns its size: sampled candidates end a million bytes larger than they could."""
    outcome = train(run, assignment, progress)
    if assignment.role == "search":
        outcome["bytes"] = {"payload": 1_000_000, "total": 1_000_000}
    return outcome
