"""Hot ids that change half-way: FIITED beside a frequency cut that was planned on the first half.

    python studies/fiited/drift.py --seeds 1 2 3

Three fields of ids drawn in proportion to 1 / rank; a planted teacher adds a hidden bias per id. After half
of the train split ranks begin at another id, so that what was rare is hot. Training goes once over the
examples in order of time; `auc` is of the last part, drawn as the second half is. Counts, and with them the
plan of the cut, are those of the first half. Written to drift.csv beside this file.
"""

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch

from autoembed.data.batch import Batch
from autoembed.methods import make_method
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats
from autoembed.training import TrainingConfig, train

FIELDS = 3
COLUMNS = ("drift", "method", "keep", "seed", "file_bytes", "auc", "logloss")


class DriftingLog:
    """`ids` values a field, `rows` examples of train; with `drift`, the second half has other hot ids."""

    dense: tuple[str, ...] = ()

    def __init__(self, ids: int, rows: int, seed: int, drift: bool) -> None:
        draws = np.random.default_rng(seed)
        chances = 1 / np.arange(1, ids + 1)
        chances /= chances.sum()
        bias = draws.normal(0, 1.2, (FIELDS, ids))
        self.parts = {}
        for split, count in (("train", rows), ("valid", rows // 8), ("test", rows // 4)):
            ranks = draws.choice(ids, (count, FIELDS), p=chances)
            late = np.arange(count) >= rows // 2 if split == "train" else np.ones(count, bool)
            values = (ranks + (ids // 2) * (late & drift)[:, None]) % ids
            logits = sum(bias[field, values[:, field]] for field in range(FIELDS))
            clicks = draws.random(count) < 1 / (1 + np.exp(-logits))
            self.parts[split] = values, clicks.astype(np.float32)
        first = self.parts["train"][0][: rows // 2]
        # row 0 is out of vocabulary; rows follow the counts of the first half
        self.order = [
            np.argsort(-np.bincount(first[:, f], minlength=ids), kind="stable") for f in range(FIELDS)
        ]
        counts = [np.bincount(first[:, f], minlength=ids)[self.order[f]] for f in range(FIELDS)]
        row_of = [np.argsort(order) + 1 for order in self.order]
        for split, (values, clicks) in self.parts.items():
            rows_ = np.stack([row_of[f][values[:, f]] for f in range(FIELDS)], 1)
            self.parts[split] = rows_, clicks
        fields = (FieldStats(f"C{f + 1}", np.concatenate([[0], counts[f]])) for f in range(FIELDS))
        self.stats = Stats(tuple(fields))

    def rows(self, split: str) -> int:
        return len(self.parts[split][1])

    def labels(self, split: str) -> npt.NDArray[np.float32]:
        return self.parts[split][1]

    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """In order of time, whatever the seed."""
        rows, labels = self.parts[split]
        for at in range(0, len(labels), batch_size):
            ids = torch.from_numpy(rows[at : at + batch_size])
            yield Batch(torch.from_numpy(labels[at : at + batch_size]), torch.zeros(len(ids), 0), ids, {})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--ids", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "drift.csv")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training = TrainingConfig(
        batch_size=512, optimizer="adagrad", learning_rate=0.01, table_learning_rate=0.05, epochs=1
    )
    model = ModelConfig(name="dnn", dim=8, hidden=(32,))
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for drift in (True, False):
            for seed in arguments.seeds:
                log = DriftingLog(arguments.ids, arguments.rows, seed, drift)
                # the cut stores no marks of chunks, so it keeps a little more in the same bytes
                for name, knobs in (
                    ("fiited", {"keep": 0.05, "chunks": 2}),
                    ("frequency_cut", {"keep": 0.059, "bits": 32}),
                    ("full_precision", {}),
                ):
                    method = make_method(name, knobs)
                    trained = train(log, log.stats, method, PROFILES["packed"], model, training, seed=seed)
                    test = trained.test
                    row = (drift, name, knobs.get("keep", ""), seed, trained.bytes.total)
                    writer.writerow((*row, round(test.auc, 5), round(test.logloss, 5)))
                    file.flush()
                    print(*row, round(test.auc, 5), flush=True)


if __name__ == "__main__":
    main()
