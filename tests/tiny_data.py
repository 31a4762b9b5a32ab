"""A click log of a few thousand examples in memory, with the interface of prepared data."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from autoembed.data.batch import Bag, Batch
from autoembed.stats import FieldStats, Stats


@dataclass(frozen=True)
class TinyData:
    """Per split: labels (N,) float32, dense (N, C) float32, ids (N, F) int64, bags of one more field."""

    splits: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
    dense: tuple[str, ...]
    bags: dict[str, list[np.ndarray]]
    pooling: str = "mean"

    def rows(self, split: str) -> int:
        return len(self.splits[split][0])

    def labels(self, split: str) -> np.ndarray:
        return self.splits[split][0]

    def relabelled(self, labels: np.ndarray) -> "TinyData":
        splits = self.splits | {"train": (labels, *self.splits["train"][1:])}
        return TinyData(splits, self.dense, self.bags, self.pooling)

    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        labels, dense, ids = self.splits[split]
        order = np.arange(len(labels))
        if shuffle_seed is not None:
            order = np.random.default_rng(shuffle_seed).permutation(order)
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            bags = {}
            if self.bags:
                values = [self.bags[split][i] for i in chosen]
                offsets = np.concatenate([[0], np.cumsum([len(v) for v in values])]).astype(np.int64)
                bag = Bag(torch.from_numpy(np.concatenate(values)), torch.from_numpy(offsets), self.pooling)
                bags = {ids.shape[1] - 1: bag}
            yield Batch(
                torch.from_numpy(labels[chosen]),
                torch.from_numpy(dense[chosen]),
                torch.from_numpy(ids[chosen]),
                bags,
            )


def tiny_data(
    *,
    rows: int = 3000,
    fields: tuple[int, ...] = (40, 7, 90),
    dense: int = 2,
    bag: bool = False,
    seed: int = 0,
) -> tuple[TinyData, Stats]:
    """Labels follow a planted logit per id and a weight per dense column; `fields` are row counts.

    With `bag`, the last field holds zero to three ids per example.
    """
    random = np.random.default_rng(seed)
    weights = [random.normal(0, 1.2, size) for size in fields]
    dense_weights = random.normal(0, 0.7, dense)
    splits, bags = {}, {}
    counts = [np.zeros(size, dtype=np.int64) for size in fields]
    for split, size in (("train", rows), ("valid", rows // 4), ("test", rows // 4)):
        ids = np.stack([_zipf(random, size, count) for count in fields], axis=1)
        dense_values = random.normal(size=(size, dense)).astype(np.float32)
        logits = dense_values @ dense_weights
        last = len(fields) - 1 if bag else len(fields)
        for field in range(last):
            logits = logits + weights[field][ids[:, field]]
        if bag:
            held = [_zipf(random, int(random.integers(0, 4)), fields[-1]) for _ in range(size)]
            logits = logits + np.array(
                [weights[-1][values].mean() if len(values) else 0.0 for values in held]
            )
            bags[split] = held
            ids[:, -1] = 0
        if split == "train":
            for field in range(last):
                counts[field] += np.bincount(ids[:, field], minlength=fields[field])
            if bag:
                counts[-1] += np.bincount(np.concatenate(held), minlength=fields[-1])
        labels = (random.random(size) < 1 / (1 + np.exp(-logits))).astype(np.float32)
        splits[split] = (labels, dense_values, ids)
    stats = Stats(
        tuple(
            FieldStats(f"field{i}", _falling(count), bag and i == len(fields) - 1)
            for i, count in enumerate(counts)
        )
    )
    return TinyData(splits, tuple(f"dense{i}" for i in range(dense)), bags), stats


def _zipf(random: np.random.Generator, size: int, rows: int) -> np.ndarray:
    """Rows 0 .. rows - 1, small ones more often."""
    return np.minimum(rows ** random.random(size), rows - 1).astype(np.int64)


def _falling(counts: np.ndarray) -> np.ndarray:
    """counts with [1:] made never to increase, as prepared data promises."""
    return np.concatenate([counts[:1], np.sort(counts[1:])[::-1]])
