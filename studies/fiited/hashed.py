"""FIITED and full precision on ids that are hashed without a vocabulary, beside ids with one.

    python studies/fiited/hashed.py --prepared prepared --seeds 1 2 3

Epinions under the recipe of studies/references, nothing tuned again. Both fields are hashed to 1, 2 and 4
times as many rows as train has ids; `keep` of FIITED is divided by that number, so that pools are equally
large. `resident_bytes`: pool, optimizer state, entries, pointers and utilities when training ends;
`peak_bytes`: with the remembered epoch. `ids` and `sharing` are what `autoembed stats` tells of the items. A
row is added to hashed.csv beside this file after each run; runs that are there are left out.
"""

import argparse
import csv
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from autoembed.config import Section, load
from autoembed.data.config import Categorical, load_data_config
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData
from autoembed.methods import make_method
from autoembed.models import ModelConfig
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, plan_bytes
from autoembed.report.stats import stats_rows
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, trained_run

HERE = Path(__file__).parent
TIMES = (0, 1, 2, 4)  # hashed rows per id; 0 stands for the vocabulary
KEEPS = (0.35, 0.1, 0.01, None)  # None is full precision
COLUMNS = (
    *("times", "keep", "seed", "rows", "ids", "sharing", "file_bytes", "index_bytes", "vocabulary_bytes"),
    *("resident_bytes", "peak_bytes", "valid_auc", "test_auc", "test_logloss", "epochs", "cpu_ms_per_step"),
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--times", type=int, nargs="+", choices=TIMES, default=TIMES)
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--out", type=Path, default=HERE / "hashed.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    references = HERE.parent / "references"
    recipe = load(Recipe, references / "epinions.yaml")
    data = prepared(references / recipe.data, arguments.prepared)
    for seed in arguments.seeds:
        for keep in KEEPS:
            for times in arguments.times:
                key = [str(times), str(keep or "full"), str(seed)]
                if key in [row[:3] for row in _rows(arguments.out)]:
                    continue
                row = [*key, *measured(data[times], recipe, keep and keep / max(times, 1), seed)]
                print(*row, flush=True)
                new = not arguments.out.exists()
                with arguments.out.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([COLUMNS, row] if new else [row])


def prepared(config_path: Path, folder: Path) -> dict[int, PreparedData]:
    """By hashed rows per id: the log with a vocabulary first, which tells how many ids there are."""
    config = load_data_config(config_path)
    data = {0: prepare(config, folder / "epinions")}
    ids = {entry["name"]: entry["train_ids"] for entry in data[0].manifest["fields"]}
    for times in TIMES[1:]:
        hashed = {name: Categorical(hash_rows=times * count) for name, count in ids.items()}
        data[times] = prepare(
            config.model_copy(update={"categorical": hashed}), folder / f"epinions-hashed-{times}"
        )
    return data


def measured(data: PreparedData, recipe: Recipe, keep: float | None, seed: int) -> list[Any]:
    """The columns behind the key."""
    stats, items = stats_of(data), stats_rows(data)[1]
    method = make_method("full_precision", {}) if keep is None else make_method("fiited", {"keep": keep})
    run = trained_run(data, stats, method, PROFILES["packed"], recipe.model, recipe.training, seed, "cpu")
    packed = run.table.pack()
    embeddings = PackedTable(packed, stats.first_rows)
    valid, test = (run.evaluate(embeddings, split) for split in ("valid", "test"))
    size, ledger = plan_bytes(packed.plan), run.meter.read()
    steps = -(-data.rows("train") // recipe.training.batch_size) * ledger.epochs
    vocabulary = sum(data.vocabulary(field).nbytes for field in range(len(data.fields)))
    return [
        *(stats.rows, items.train_ids, round(items.sharing, 4), size.total, size.index, vocabulary),
        *(run.table.training_bytes, ledger.peak_table_bytes),
        *(round(valid.auc, 5), round(test.auc, 5), round(test.logloss, 5)),
        *(ledger.epochs, round(1e3 * ledger.cpu_seconds / steps, 2)),
    ]


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


if __name__ == "__main__":
    main()
