"""FIITED at several pool sizes beside full precision and the frequency cut: AUC, bytes, time.

    python studies/fiited/run.py epinions --prepared prepared --seeds 1 2 3

Recipes of studies/references, nothing tuned again; the best epoch is chosen on the validation split.
`resident_bytes`: tables, optimizer state, pointers and utilities while training; `peak_bytes` with the
remembered epoch. `cpu_ms_per_step` holds the validation after each epoch, too. A row is added to
results.csv beside this file after each run; runs that are there are left out.
"""

import argparse
import csv
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from autoembed.config import Section, load
from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.methods import make_method
from autoembed.methods.base import TableSpec
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, train

HERE = Path(__file__).parent
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("fiited", {"keep": 0.1}),
    ("frequency_cut", {"keep": 0.108, "bits": 32}),
    ("fiited", {"keep": 0.35}),
    ("full_precision", {}),
    ("fiited", {"keep": 0.01}),
    ("frequency_cut", {"keep": 0.358, "bits": 32}),
    ("frequency_cut", {"keep": 0.018, "bits": 32}),
    # the first 100 of the 1,296 steps of four epochs of epinions
    ("fiited", {"keep": 0.1, "schedule": 100}),
    ("fiited", {"keep": 0.35, "schedule": 100}),
    ("fiited", {"keep": 0.01, "schedule": 100}),
    ("fiited", {"keep": 0.1, "by_field": 1}),
    ("fiited", {"keep": 0.01, "by_field": 1}),
)
COLUMNS = (
    *("data", "method", "keep", "seed", "file_bytes", "resident_bytes", "peak_bytes", "valid_auc"),
    *("test_auc", "test_logloss", "epochs", "cpu_ms_per_step"),
)


class Recipe(Section):
    """A tuned full-precision recipe of studies/references."""

    data: str
    model: ModelConfig
    training: TrainingConfig


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    references = HERE.parent / "references"
    recipe = load(Recipe, references / f"{arguments.data}.yaml")
    data = prepare(load_data_config(references / recipe.data), arguments.prepared / arguments.data)
    stats = stats_of(data)
    spec = TableSpec(stats, recipe.model.dim, PROFILES["packed"])
    for name, knobs in SETTINGS:
        for seed in arguments.seeds:
            label = " ".join([name, *(f"{k}={knobs[k]}" for k in ("schedule", "by_field") if k in knobs)])
            key = [arguments.data, label, str(knobs.get("keep", "")), str(seed)]
            if key in [row[:4] for row in _rows(arguments.out)]:
                continue
            method = make_method(name, knobs)
            trained = train(data, stats, method, spec.profile, recipe.model, recipe.training, seed=seed)
            # what is held between steps does not depend on the step
            fresh = method.table(spec, torch.Generator().manual_seed(seed), recipe.training.row_optimizer)
            steps = -(-data.rows("train") // recipe.training.batch_size) * trained.ledger.epochs
            row = [
                *key,
                *(trained.bytes.total, fresh.training_bytes, trained.ledger.peak_table_bytes),
                *(round(trained.valid.auc, 5), round(trained.test.auc, 5), round(trained.test.logloss, 5)),
                *(trained.ledger.epochs, round(1e3 * trained.ledger.cpu_seconds / steps, 2)),
            ]
            stored = [sum(s.stored_rows for s in field.segments) for field in trained.packed.plan.fields]
            print(*row, "stored by field:", *stored, flush=True)
            new = not arguments.out.exists()
            with arguments.out.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([COLUMNS, row] if new else [row])


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


if __name__ == "__main__":
    main()
