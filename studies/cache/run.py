"""Codes with a float32 cache: bytes really held, hit rates, and accuracy, at dimensions 16, 64 and 128.

    python studies/cache/run.py [--prepared DIR] [--seeds 3] [--dims 16 64 128]

The tuned full-precision recipe of studies/references/epinions.yaml with the dimension changed and nothing
tuned again. `table_bytes` are what look-ups need while training (codes, steps, cache, tags, stamps),
optimizer state apart; `ratio` is of float32 rows. Written to results.csv beside this file, a row a run.
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
from autoembed.lookup import look_up
from autoembed.methods import make_method
from autoembed.methods.base import TableSpec
from autoembed.methods.cached_low_precision import CachedTable
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, train

HERE = Path(__file__).parent
SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full_precision", {}),
    ("low_precision", {"format": "int8"}),
    ("cached_low_precision", {"bits": 8, "cache": 0.05, "placement": "lru"}),
    ("cached_low_precision", {"bits": 8, "cache": 0.05, "placement": "lfu"}),
    ("cached_low_precision", {"bits": 8, "cache": 0.05, "placement": "rank"}),
    ("cached_low_precision", {"bits": 4, "cache": 0.01, "placement": "lru"}),
    ("cached_low_precision", {"bits": 4, "cache": 0.01, "placement": "lfu"}),
    ("cached_low_precision", {"bits": 4, "cache": 0.01, "placement": "rank"}),
)
COLUMNS = (
    *("dim", "method", "bits", "cache", "placement", "seed", "table_bytes", "ratio", "hit_rate"),
    *("file_bytes", "valid_auc", "test_auc", "test_logloss", "cpu_seconds"),
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
    parser.add_argument("--dims", type=int, nargs="*", default=[16, 64, 128])
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(Recipe, HERE.parent / "references" / "epinions.yaml")
    data = prepare(load_data_config(HERE.parent / "data" / "epinions.yaml"), options.prepared / "epinions")
    stats, profile = stats_of(data), PROFILES["packed-row-scale"]
    rows: list[dict[str, Any]] = []
    for dim in options.dims:
        model = recipe.model.model_copy(update={"dim": dim})
        spec = TableSpec(stats, dim, profile, recipe.training.initial_std)
        for seed in range(1, 1 + options.seeds):
            for name, parameters in SETTINGS:
                method = make_method(name, parameters)
                held, hits = table_bytes(method, spec, data, recipe.training.batch_size)
                started = time.process_time()
                run = train(data, stats, method, profile, model, recipe.training, seed=seed)
                rows.append(
                    {
                        **{"dim": dim, "method": name, **parameters, "seed": seed, "table_bytes": held},
                        "ratio": round(4 * dim * stats.rows / held, 2),
                        "hit_rate": "" if hits is None else round(hits, 4),
                        "file_bytes": run.bytes.total,
                        "valid_auc": round(run.valid.auc, 5),
                        "test_auc": round(run.test.auc, 5),
                        "test_logloss": round(run.test.logloss, 5),
                        "cpu_seconds": round(time.process_time() - started, 1),
                    }
                )
                print(rows[-1], flush=True)
                write(rows)


def table_bytes(method: Any, spec: TableSpec, data: Any, batch_size: int) -> tuple[int, float | None]:
    """Bytes of a fresh table without its optimizer's state, and the share of look-ups found in the cache.

    Hits are counted over the second half of one epoch, when the cache is full.
    """
    from autoembed_kernels.row_update import RowOptimizer

    table = method.table(spec, torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    held = table.training_bytes
    if not isinstance(table, CachedTable) or table.cache is None:
        return held, None
    found = total = 0
    batches = list(data.batches("train", batch_size, shuffle_seed=1))
    for number, batch in enumerate(batches):
        lookup = look_up(batch, table.first_rows)
        if number >= len(batches) // 2:
            found += int((table.cache.find(lookup.rows) >= 0).sum())
            total += len(lookup.rows)
        table.values(lookup)
    return held, found / max(total, 1)


def write(rows: list[dict[str, Any]]) -> None:
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
