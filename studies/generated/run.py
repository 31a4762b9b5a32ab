"""Memory and accuracy of every method on a generated log of Criteo's shape with millions of ids.

    python studies/generated/run.py --tune                          rates of full precision, to tuning.csv
    python studies/generated/run.py --seeds 1 2 3                   all methods, a row each to results.csv
    python studies/generated/run.py --seeds 1 --methods joint       the joint search, a row per budget
    python studies/generated/run.py --seeds 1 --summary             the table of the README

The log, 0.5 GB, and its prepared form, 0.35 GB, are made once under --work. Every training runs in a process
of its own with one thread, one after another; what is in the CSV is not run again. Memory is read from
/proc/self/status, so this needs Linux.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from joint import joint_rows
from memory import PrivateMemory, peak_resident_bytes
from settings import SETTINGS, TRIED, Setting
from summary import summary

from autoembed.config import Section, load
from autoembed.data.generate import config_of, criteo_kaggle, generate
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData, open_prepared
from autoembed.methods import make_method
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import Progress, TrainingConfig, train

HERE = Path(__file__).parent
ROWS = 2_000_000
COLUMNS = (
    *("method", "budget", "knobs", "profile", "optimizer", "rates", "seed"),
    *("total_bytes", "payload", "scales", "offsets", "projections", "index", "header"),
    # tables and optimizer state; private bytes of the process before tables are made, until the epoch's last
    # step, and with validation, packing and test
    *("table_bytes", "private_before", "private_training", "private_peak", "resident_peak"),
    *("cpu_seconds", "examples_per_second", "valid_auc", "test_auc", "test_logloss"),
)
KEY = COLUMNS[:7]
# freed blocks go back at once, so that peaks are of what was held and not of what the heap kept
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "8388608", "MALLOC_TRIM_THRESHOLD_": "8388608"}


class Recipe(Section):
    """recipe.yaml: the network and the training that all methods share."""

    model: ModelConfig
    training: TrainingConfig


def prepared(rows: int, work: Path) -> PreparedData:
    """The log, generated and prepared unless it is there."""
    folder = work / f"prepared-{rows}"
    if not folder.exists():
        log = work / f"log-{rows}.txt"
        spec = criteo_kaggle(rows)
        if not log.exists():
            generate(spec, log)
        prepare(config_of(spec, log), folder)
    return open_prepared(folder, memory_limit_bytes=0)  # mapped: what is private holds no examples


def measured(data: PreparedData, recipe: Recipe, setting: Setting, seed: int) -> dict[str, Any]:
    """Train one setting in this process; what it cost, held and reached."""
    memory = PrivateMemory()
    stats = stats_of(data)
    before = memory.now()
    while_training = before  # a training too short to report leaves it there

    def saw(at: Progress) -> None:
        nonlocal while_training
        if at.best is None:  # nothing was validated yet
            while_training = memory.peak

    training = recipe.training.model_copy(update=setting.training)
    method = make_method(setting.method, setting.knobs)
    trained = train(
        data, stats, method, PROFILES[setting.profile], recipe.model, training, seed=seed, progress=saw
    )
    memory.stop()
    ledger, size = trained.ledger, trained.bytes
    return {
        **{part: getattr(size, part) for part in COLUMNS[8:14]},
        "total_bytes": size.total,
        "table_bytes": ledger.peak_table_bytes,
        "private_before": before,
        "private_training": while_training,
        "private_peak": memory.peak,
        "resident_peak": peak_resident_bytes(),
        "cpu_seconds": round(ledger.cpu_seconds, 1),
        "examples_per_second": round(ledger.samples / ledger.cpu_seconds),
        "valid_auc": round(trained.valid.auc, 5),
        "test_auc": round(trained.test.auc, 5),
        "test_logloss": round(trained.test.logloss, 5),
    }


def key(setting: Setting, recipe: Recipe, seed: int) -> dict[str, Any]:
    """What identifies a row of the CSV."""
    training = recipe.training.model_copy(update=setting.training)
    knobs = " ".join(f"{name}={_short(value)}" for name, value in setting.knobs.items())
    rates = f"{training.learning_rate:g} {training.table_learning_rate:g}"
    if training.scale_learning_rate != recipe.training.scale_learning_rate:
        rates += f" {training.scale_learning_rate:g}"
    values = (setting.method, setting.budget, knobs, setting.profile, training.optimizer, rates, seed)
    return dict(zip(KEY, map(str, values), strict=True))


def is_of(row: dict[str, str], setting: Setting, recipe: Recipe, seed: int) -> bool:
    """Whether a row of the CSV is this setting's, whatever its free knob was fitted to."""
    if setting.method == "joint":  # one walk, a row per budget
        return (row["method"], row["seed"]) == ("joint", str(seed))
    place = key(setting, recipe, seed)
    fixed = place.pop("knobs")
    if setting.free:
        return place.items() <= row.items() and row["knobs"].startswith(f"{fixed} {setting.free}=".lstrip())
    return place.items() <= row.items() and row["knobs"] == fixed


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    options = _options()
    recipe = load(Recipe, HERE / "recipe.yaml")
    if options.summary:
        print(summary(read_rows(options.out)))
        return
    torch.set_num_threads(1)
    data = prepared(options.rows, options.work)
    if options.one is not None:
        asked = json.loads(options.one)
        seed = asked.pop("seed")
        for row in _one(options, data, recipe, asked, seed):
            print(json.dumps(row))
        return
    stats, dim = stats_of(data), recipe.model.dim
    settings = TRIED if options.tune else SETTINGS
    wanted = [
        setting
        for setting in settings
        if (not options.methods or setting.method in options.methods)
        and (not options.budgets or setting.budget in ("", *options.budgets))
    ]
    for seed in options.seeds:
        for setting in wanted:
            if any(is_of(row, setting, recipe, seed) for row in read_rows(options.out)):
                continue
            try:
                fitted = replace(setting, knobs=setting.fitted(stats, dim), free="")
            except ValueError as error:
                print(f"{setting.method} {setting.budget}: {error}", flush=True)
                continue
            for result in _in_own_process(options, fitted, seed):
                row = {**key(fitted, recipe, seed), **result}
                append(options.out, row)
                print(*(row[name] for name in COLUMNS), flush=True)


def _one(
    options: argparse.Namespace, data: PreparedData, recipe: Recipe, asked: dict[str, Any], seed: int
) -> Iterator[dict[str, Any]]:
    """The child's part: one training, or one walk of the joint search."""
    if asked["method"] == "joint":
        folder = options.work / f"joint-{options.rows}-{seed}"
        yield from joint_rows(data.path, recipe.model, recipe.training, seed, folder)
    else:
        yield measured(data, recipe, Setting(**asked), seed)


def _in_own_process(options: argparse.Namespace, setting: Setting, seed: int) -> list[dict[str, Any]]:
    command = [sys.executable, __file__, "--rows", str(options.rows), "--work", str(options.work)]
    command += ["--one", json.dumps({**vars(setting), "seed": seed})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | ALLOCATOR)
    if done.returncode:
        print(f"{setting.method} {setting.knobs} seed {seed} failed, see above", flush=True)
        return []
    return [json.loads(line) for line in done.stdout.splitlines()]


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--budgets", nargs="*", default=[], help="only these, and what has no budget")
    parser.add_argument("--tune", action="store_true", help="try rates of full precision")
    parser.add_argument("--work", type=Path, default=Path("generated"), help="folder of log and data")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--summary", action="store_true", help="train nothing, print the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out or HERE / ("tuning.csv" if options.tune else "results.csv")
    return options


if __name__ == "__main__":
    main()
