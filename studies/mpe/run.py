"""MPE on the four networks of its paper, by its lambda and by a byte budget.

    python studies/mpe/run.py epinions --prepared DIR [--seeds 1 2 3] [--networks dnn dcn deepfm ipnn]
    python studies/mpe/run.py epinions --seeds 1 --networks dnn --hidden 1024 512 256     the paper's width

Data, dimension and training are those of the full-precision recipe in studies/references; the network is
MPE's (arXiv:2409.20305): an MLP with batch norm, three cross layers with a vector each, no dropout, by
default at a quarter of the paper's width. Nothing is tuned again. All figures are of the packed tables;
`total_bytes` is the size of the tables file. Rows go to results.csv beside this file as they come, and those
that are there are not trained again.
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
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, train

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
NETWORKS = ("dnn", "dcn", "deepfm", "ipnn")
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full_precision", {}),
    ("mpe", {"penalty": 1.6e-5}),
    ("mpe", {"penalty": 2.3e-3}),
    ("mpe_budget", {"ratio": 1 / 8}),
    ("mpe_budget", {"ratio": 1 / 16}),
    ("mpe_budget", {"ratio": 1 / 32}),
)
KEYS = ("data", "network", "hidden", "method", "penalty", "ratio", "seed")
COLUMNS = (
    *KEYS,
    *("total_bytes", "payload", "scales", "offsets", "index", "header"),
    *("times_smaller", "valid_auc", "test_auc", "test_logloss", "epochs", "cpu_seconds"),
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
    parser.add_argument("data", choices=("epinions", "frappe", "ml1m"))
    parser.add_argument("--prepared", type=Path, default=Path("prepared"), help="folder of prepared data")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--hidden", type=int, nargs="*", default=[256, 128, 64])
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(Recipe, HERE.parent / "references" / f"{options.data}.yaml")
    data = prepare(
        load_data_config(HERE.parent / "data" / f"{options.data}.yaml"), options.prepared / options.data
    )
    stats, profile = stats_of(data), PROFILES["packed"]
    hidden = "-".join(map(str, options.hidden))
    for seed in options.seeds:
        for name in options.networks:
            model = ModelConfig.model_validate(
                {"name": name, "dim": recipe.model.dim, "hidden": tuple(options.hidden), "batch_norm": True}
            )
            for method, parameters in SETTINGS:
                told = {key: f"{value:g}" for key, value in parameters.items()}
                key = {"data": options.data, "network": name, "hidden": hidden, "method": method, **told}
                key["seed"] = str(seed)
                if any(all(row[k] == key.get(k, "") for k in KEYS) for row in recorded()):
                    continue
                started = time.process_time()
                made = make_method(method, parameters)
                run = train(data, stats, made, profile, model, recipe.training, seed=seed)
                record(
                    {
                        **key,
                        "total_bytes": run.bytes.total,
                        **{part: getattr(run.bytes, part) for part in COLUMNS[8:13]},
                        "times_smaller": round(4 * model.dim * stats.rows / run.bytes.total, 1),
                        "valid_auc": round(run.valid.auc, 5),
                        "test_auc": round(run.test.auc, 5),
                        "test_logloss": round(run.test.logloss, 5),
                        "epochs": len(run.history),
                        "cpu_seconds": round(time.process_time() - started, 1),
                    }
                )


def recorded() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record(row: dict[str, Any]) -> None:
    """Add a row to the file, which another data set's run may have changed meanwhile."""
    rows = [*recorded(), row]
    print(row, flush=True)
    with RESULTS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
