"""CAFE online beside its offline split and plain hashing on epinions, at equal ratios.

    python studies/cafe/run.py [--prepared DIR] [--seeds 3]

The tuned full-precision recipe of studies/references/epinions.yaml, nothing tuned again. `file_bytes` is the
tables file, `training_bytes` what the table holds while it trains, optimizer state and sketch included.
Written to results.csv beside this file, a row a run.
"""

import argparse
import csv
import os
import time
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
    ("full_precision", {}),
    *((name, {"ratio": r}) for r in (0.3, 0.1, 0.03) for name in ("hashing", "cafe_offline", "cafe")),
)
COLUMNS = (
    *("method", "ratio", "seed", "file_bytes", "training_bytes"),
    *("valid_auc", "test_auc", "test_logloss", "cpu_seconds"),
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
    parser.add_argument("--prepared", type=Path, default=Path("prepared"), help="folder of prepared data")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(Recipe, HERE.parent / "references" / "epinions.yaml")
    data = prepare(load_data_config(HERE.parent / "data" / "epinions.yaml"), options.prepared / "epinions")
    stats, profile = stats_of(data), PROFILES["packed"]
    spec = TableSpec(stats, recipe.model.dim, profile, recipe.training.initial_std)
    rows: list[dict[str, Any]] = []
    for seed in range(1, 1 + options.seeds):
        for name, parameters in SETTINGS:
            method = make_method(name, parameters)
            table = method.table(spec, torch.Generator().manual_seed(seed), recipe.training.row_optimizer)
            started = time.process_time()
            run = train(data, stats, method, profile, recipe.model, recipe.training, seed=seed)
            rows.append(
                {
                    **{"method": name, **parameters, "seed": seed, "file_bytes": run.bytes.total},
                    "training_bytes": table.training_bytes,
                    "valid_auc": round(run.valid.auc, 5),
                    "test_auc": round(run.test.auc, 5),
                    "test_logloss": round(run.test.logloss, 5),
                    "cpu_seconds": round(time.process_time() - started, 1),
                }
            )
            print(rows[-1], flush=True)
            write(rows)


def write(rows: list[dict[str, Any]]) -> None:
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
