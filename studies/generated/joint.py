"""The joint search on the generated log: one trunk, and from it a model for every budget."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory import PrivateMemory, peak_resident_bytes

from autoembed.models import ModelConfig
from autoembed.record import TrialRecord
from autoembed.search.driver import run_study
from autoembed.search.events import Event, TrialEnded
from autoembed.search.folder import read_records
from autoembed.search.study import StudyConfig
from autoembed.training import TrainingConfig

BUDGETS = ("1/3.9", "1/15.5", "1/62", "1/248", "1/500", "1/1000", "1/2000", "1/4000")
PARTS = ("payload", "scales", "offsets", "projections", "index", "header")


def joint_rows(
    data: Path, model: ModelConfig, training: TrainingConfig, seed: int, run: Path
) -> Iterator[dict[str, Any]]:
    """A row per budget of the walk of one seed; a walk that was cut off goes on.

    Memory is that of the whole process until the point was finished, of this call.
    """
    config = StudyConfig(
        data=str(data),
        search_space="joint",
        budgets=BUDGETS,
        model=model,
        training=training,
        seeds=1,
        seed=seed,
        workers=1,
    )
    memory = PrivateMemory()
    before = memory.now()
    held: dict[int, dict[str, int]] = {}

    def tell(event: Event) -> None:
        if isinstance(event, TrialEnded):
            held[event.record.number] = {
                "private_training": memory.peak,
                "private_peak": memory.peak,
                "resident_peak": peak_resident_bytes(),
            }

    run_study(config, run, progress=tell)
    memory.stop()
    records = [record for record in read_records(run) if record.state == "complete"]
    for record in records:
        yield {**_figures(record), "private_before": before, **held.get(record.number, {})}


def _figures(record: TrialRecord) -> dict[str, Any]:
    at = record.parameters.get("budget")
    assert record.valid_auc is not None and record.test_auc is not None and record.test_logloss is not None
    return {
        "method": "joint" if at else "joint's trunk",
        "budget": BUDGETS[record.number - 1] if at else "",
        "knobs": record.reason,
        **{part: record.bytes[part] for part in PARTS},
        "total_bytes": record.total_bytes,
        "table_bytes": record.peak_table_bytes,
        "cpu_seconds": round(record.cost, 1),
        "examples_per_second": round(record.samples / record.cost) if record.samples else "",
        "valid_auc": round(record.valid_auc, 5),
        "test_auc": round(record.test_auc, 5),
        "test_logloss": round(record.test_logloss, 5),
    }
