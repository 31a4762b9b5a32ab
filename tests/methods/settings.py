"""Settings that the shared suite holds every method to, and the tiny data that it trains on."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from autoembed.companions import Companion
from autoembed.data.batch import Bag, Batch
from autoembed.methods import make_method
from autoembed.methods.base import Method, TableSpec
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats

SETTINGS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("full_precision", {}),
    ("fp16", {}),
    ("low_precision", {}),
    ("low_precision", {"format": "bf16", "rounding": "nearest"}),
    ("low_precision", {"format": "int8"}),
    ("cached_low_precision", {}),
    ("cached_low_precision", {"bits": 4, "cache": 0.08, "placement": "lfu"}),
    ("cached_low_precision", {"bits": 4, "cache": 0.05, "placement": "rank"}),
    ("alpt", {}),
    ("alpt", {"bits": 4, "step_rate": 0.1}),
    ("uniform", {"bits": 8}),
    ("uniform", {"bits": 4}),
    ("uniform", {"bits": 3}),
    ("uniform", {"bits": 2}),
    ("uniform", {"bits": 1}),
    ("bebr", {"bits": 1}),
    ("bebr", {"bits": 4}),
    ("dqrm", {}),
    ("dqrm", {"bits": 2, "period": 2}),
    ("frequency_cut", {"keep": 0.3, "bits": 8}),
    ("frequency_cut", {"keep": 0.05, "bits": 2}),
    ("frequency_cut", {"keep": 1.0, "bits": 16}),
    ("frequency_cut", {"keep": 0.5, "bits": 3, "grid": "signs"}),
    ("hashing", {"ratio": 0.25, "small_rows": 10}),
    ("hashing", {"ratio": 0.01, "small_rows": 1, "bits": 4}),
    ("hashing", {"ratio": 0.3, "small_rows": 10, "bits": 4, "grid": "signs"}),
    ("quotient_remainder", {"collisions": 4, "small_rows": 10}),
    ("quotient_remainder", {"collisions": 2, "combine": "add", "bits": 16, "small_rows": 60}),
    ("quotient_remainder", {"collisions": 100, "combine": "concatenate", "small_rows": 1}),
    ("quotient_remainder", {"collisions": 2, "combine": "path", "hidden": 8, "small_rows": 10}),
    ("cafe_offline", {"ratio": 0.3, "small_rows": 10}),
    ("cafe_offline", {"ratio": 0.05, "hashed": 0.9, "bits": 4, "small_rows": 1}),
    ("cafe_offline", {"ratio": 0.3, "bits": 3, "grid": "signs", "small_rows": 10}),
    ("cafe", {"ratio": 0.3, "interval": 5, "small_rows": 10}),
    ("cafe", {"ratio": 0.6, "interval": 1, "decay": 0.5, "bits": 16, "small_rows": 60}),
    ("robe", {"ratio": 0.25}),
    ("robe", {"ratio": 0.03, "block": 4, "bits": 16}),
    ("lma", {"ratio": 0.25}),
    ("lma", {"ratio": 0.05, "keys": 2, "over": "partners", "least": 3, "block": 4, "bits": 16}),
    ("fiited", {"keep": 0.3, "chunks": 2, "interval": 5}),
    ("fiited", {"keep": 0.05, "chunks": 1, "bits": 16}),
    ("fiited", {"keep": 1.0, "chunks": 8, "decay": 0.5}),
    ("fiited", {"keep": 0.2, "chunks": 2, "schedule": 40}),
    ("fiited", {"keep": 0.1, "chunks": 2, "schedule": 10, "by_field": 1}),
    ("mixed_dimension", {"alpha": 0.8}),
    ("mixed_dimension", {"alpha": 0.15, "blocks": "group", "rounding": "nearest", "bits": 4}),
    ("mixed_dimension", {"alpha": 0.0, "keep": 0.4, "blocks": "group", "bits": 16}),
    ("mpe", {"groups": 16, "penalty": 1e-4}),
    ("mpe", {"groups": 7, "penalty": 1e-2, "tau": 0.02}),
    ("mpe_budget", {"groups": 16, "ratio": 0.2}),
    ("mpe_budget", {"groups": 40, "ratio": 0.45}),
    ("pep", {"keep": 0.4, "price": 0.1}),
    ("pep", {"keep": 0.25, "bits": 4}),
)

# what must not shrink the file when it grows, everything else being equal
GROWING: tuple[tuple[str, str, tuple[Any, ...], Mapping[str, Any]], ...] = (
    ("uniform", "bits", (1, 2, 3, 4, 8), {}),
    ("frequency_cut", "bits", (1, 2, 3, 4, 8, 16, 32), {"keep": 0.3}),
    ("frequency_cut", "keep", (0.01, 0.1, 0.3, 0.7, 1.0), {"bits": 8}),
    ("hashing", "bits", (1, 2, 3, 4, 8, 16, 32), {"ratio": 0.25}),
    ("hashing", "ratio", (0.01, 0.1, 0.3, 0.7, 1.0), {"bits": 8, "small_rows": 10}),
    ("quotient_remainder", "collisions", (64, 16, 8, 4, 2), {"small_rows": 10}),
    ("cafe_offline", "bits", (1, 2, 3, 4, 8, 16, 32), {"ratio": 0.3}),
    ("cafe_offline", "ratio", (0.01, 0.1, 0.3, 0.7, 1.0), {"small_rows": 10}),
    ("cafe", "ratio", (0.01, 0.1, 0.3, 0.7, 1.0), {"small_rows": 10}),
    ("robe", "ratio", (0.01, 0.1, 0.3, 0.7, 1.0), {"block": 16}),
    ("lma", "ratio", (0.01, 0.1, 0.3, 0.7, 1.0), {"block": 16}),
    ("lma", "least", (10_000, 1000, 100, 10, 1), {"block": 16}),
    ("low_precision", "format", ("int8", "fp16"), {}),
    ("alpt", "bits", (4, 8), {}),
    ("cached_low_precision", "bits", (4, 8), {}),
    ("cached_low_precision", "cache", (0.01, 0.05, 0.1, 0.3, 1.0), {"placement": "rank"}),
    ("bebr", "bits", (1, 2, 3, 4), {}),
    ("dqrm", "bits", (2, 3, 4, 8), {}),
    ("fiited", "keep", (0.01, 0.1, 0.3, 0.7, 1.0), {"chunks": 2}),
    ("pep", "keep", (0.12, 0.2, 0.4, 0.7, 1.0), {}),
    ("mpe_budget", "ratio", (0.15, 0.2, 0.3, 0.4, 0.5), {"groups": 16}),
    ("mixed_dimension", "bits", (2, 4, 8, 16, 32), {"alpha": 0.3}),
    ("mixed_dimension", "keep", (0.1, 0.2, 0.3, 0.5, 0.9, 1.0), {"alpha": 0.0, "blocks": "group"}),
)

DIM = 8
ROWS = (200, 1, 3, 60)
BAG_FIELD = 3


def methods() -> list[Method]:
    return [make_method(name, parameters) for name, parameters in SETTINGS]


def stats() -> Stats:
    """Four fields, the last one a bag; one holds nothing but the out-of-vocabulary row."""
    counts = (
        np.concatenate([[9], 1000 // np.arange(1, 200)]),
        np.array([77]),
        np.array([0, 50, 27]),
        np.concatenate([[2], np.sort(np.arange(59) % 7)[::-1]]),
    )
    return Stats(
        tuple(
            FieldStats(f"field_{number}", count.astype(np.int64), number == BAG_FIELD)
            for number, count in enumerate(counts)
        )
    )


def spec(profile: str = "packed") -> TableSpec:
    return TableSpec(stats(), DIM, PROFILES[profile], initial_std=0.1, companions=companions())


class TrainSplit:
    """What companions read: a thousand examples."""

    def rows(self, split: str) -> int:
        return 1000

    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        yield batch(1000, seed=11)


@lru_cache
def companions() -> Mapping[Companion, torch.Tensor]:
    """All that methods of the settings ask of the train split."""
    asked = {companion for method in methods() for companion in method.companions()}
    return {companion: companion.compute(TrainSplit(), stats()) for companion in asked}


def batch(size: int, seed: int) -> Batch:
    """Rows drawn evenly, so that every row of every field is met; some bags are empty."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(0, rows, (size,), generator=generator) for rows in ROWS], dim=1)
    ids[:, BAG_FIELD] = 0
    lengths = torch.randint(0, 4, (size,), generator=generator)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    values = torch.randint(0, ROWS[BAG_FIELD], (int(lengths.sum()),), generator=generator)
    # a rule that the rows can learn: examples whose first two ids are both even or both odd are clicks
    labels = ((ids[:, 0] + ids[:, 2]) % 2).float()
    return Batch(labels, torch.zeros(size, 0), ids, {BAG_FIELD: Bag(values, offsets, "mean")})


def all_rows() -> Batch:
    """One example for every row of the largest field: every row of every field is read."""
    size = max(ROWS)
    ids = torch.stack([torch.arange(size).clamp(max=rows - 1) for rows in ROWS], dim=1)
    ids[:, BAG_FIELD] = 0
    offsets = torch.arange(size + 1).clamp(max=ROWS[BAG_FIELD])
    bag = Bag(torch.arange(ROWS[BAG_FIELD]), offsets, "sum")
    return Batch(torch.zeros(size), torch.zeros(size, 0), ids, {BAG_FIELD: bag})
