"""Full-precision references: train the recipes beside this file with several seeds, keep the figures.

    python studies/references/run.py                       all recipes, seeds 1 2 3
    python studies/references/run.py frappe --seeds 1 2    one recipe, two seeds

The best epoch is chosen on the validation split; test figures are only reported. Prepared data goes to
`prepared/` in the working directory, or to --prepared.
"""

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from autoembed.config import Section, load
from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.methods.full_precision import FullPrecision
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import Trained, TrainingConfig, train

HERE = Path(__file__).parent


class Recipe(Section):
    """One reference: the data description beside the studies, a network, and how it is trained."""

    data: str
    model: ModelConfig
    training: TrainingConfig


def run_recipe(name: str, prepared: Path, seeds: list[int]) -> dict[str, Any]:
    """Train one recipe with every seed -> figures for the results file."""
    recipe = load(Recipe, HERE / f"{name}.yaml")
    data = prepare(load_data_config(HERE / recipe.data), prepared / name)
    stats = stats_of(data)
    runs = []
    for seed in seeds:
        trained = train(
            data, stats, FullPrecision(), PROFILES["packed"], recipe.model, recipe.training, seed=seed
        )
        runs.append(_figures(seed, trained))
        print(
            f"{name:14s} seed {seed}  valid {trained.valid.auc:.5f} / {trained.valid.logloss:.5f}  "
            f"test {trained.test.auc:.5f} / {trained.test.logloss:.5f}  "
            f"{runs[-1]['epochs']} epochs, {runs[-1]['seconds_per_epoch']:.1f} s each, "
            f"{trained.bytes.total:,} bytes",
            flush=True,
        )
    test_aucs = [run["test_auc"] for run in runs]
    summary = {
        "mean": statistics.mean(test_aucs),
        "std": statistics.stdev(test_aucs) if len(runs) > 1 else 0.0,
    }
    print(
        f"{name:14s} test AUC {summary['mean']:.5f} +- {summary['std']:.5f} over {len(runs)} seeds",
        flush=True,
    )
    return {"test_auc": {key: round(value, 5) for key, value in summary.items()}, "runs": runs}


def _figures(seed: int, trained: Trained) -> dict[str, Any]:
    ledger = trained.ledger
    return {
        "seed": seed,
        "valid_auc": round(trained.valid.auc, 5),
        "valid_logloss": round(trained.valid.logloss, 5),
        "test_auc": round(trained.test.auc, 5),
        "test_logloss": round(trained.test.logloss, 5),
        "bytes": trained.bytes.total,
        "epochs": ledger.epochs,
        "cpu_seconds": round(ledger.cpu_seconds, 1),
        "seconds_per_epoch": round(ledger.cpu_seconds / ledger.epochs, 2),
        "valid_auc_by_epoch": [round(epoch.valid.auc, 5) for epoch in trained.history],
    }


def main() -> None:
    names = sorted(path.stem for path in HERE.glob("*.yaml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="*", help=f"any of {', '.join(names)}; all without")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    figures = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    for name in arguments.recipes or names:
        figures[name] = {"torch": torch.__version__} | run_recipe(name, arguments.prepared, arguments.seeds)
        arguments.out.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
