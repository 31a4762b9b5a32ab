"""A raw log with every kind of column, prepared, a tiny candidate trained on it, and both exported."""

import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData
from autoembed.export.artifact import write_artifact
from autoembed.methods import make_method
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import Trained, TrainingConfig, train

MODEL = ModelConfig(name="dlrm", dim=6, hidden=(16,), bottom=(8,))
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@dataclass(frozen=True)
class Exported:
    """`log` holds the raw rows, column `part` says their split."""

    folder: Path
    log: pa.Table
    data: PreparedData
    trained: Trained
    artifact: Path


def raw_log(rows: int = 1500, seed: int = 3) -> pa.Table:
    """Clicks on ids of a long tail; missing values in every column, a fifth of the ids seen once."""
    random = np.random.default_rng(seed)

    def ids(size: int, count: int) -> np.ndarray:
        return (count ** random.random(size)).astype(int)

    user, item = ids(rows, 300), ids(rows, 80)
    tags = [ids(int(random.integers(0, 4)), 30).tolist() for _ in range(rows)]
    words = [[f"w{i}" for i in ids(int(random.integers(0, 3)), 20)] for _ in range(rows)]
    age, price = random.normal(40, 12, rows), random.lognormal(2, 1, rows)
    logit = np.sin(user) + np.cos(3 * item) + 0.02 * (age - 40) + np.array([len(t) for t in tags]) * 0.3 - 0.5

    def holes(values: Any) -> list[Any]:
        return [None if random.random() < 0.03 else value for value in values]

    return pa.table(
        {
            "click": (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64),
            "age": pa.array(holes(age.tolist()), pa.float64()),
            "price": pa.array(holes(price.tolist()), pa.float32()),
            "visits": pa.array(holes(random.integers(-3, 9, rows).tolist()), pa.int64()),
            "user": pa.array(holes([f"user-{i}-é" for i in user])),
            "item": pa.array(holes(item.tolist())),
            "tags": pa.array(
                holes([[*t, None] if t and t[0] == 1 else t for t in tags]), pa.list_(pa.int64())
            ),
            "words": pa.array(holes(["/".join(w) for w in words])),
            "duration": pa.array(holes(random.lognormal(3, 2, rows).tolist())),
            "part": ["train"] * (rows * 3 // 5) + ["valid"] * (rows // 5) + ["test"] * (rows // 5),
        }
    )


def config_for(path: Path) -> DataConfig:
    return DataConfig(
        path=str(path),
        format="parquet",
        label="click",
        dense={"age": "standard", "price": "log", "visits": "none"},
        categorical={
            "user": Categorical(),
            "item": Categorical(),
            "tags": Categorical(bag=True, pooling="mean"),
            "words": Categorical(bag=True, separator="/"),
            "duration": Categorical(bucketize=True),
        },
        split=Split(column="part"),
    )


def write_trained(
    out: Path, trained: Trained, model: ModelConfig, data: PreparedData, splits: tuple[str, ...] = ("test",)
) -> None:
    """The artifact of a trained candidate, with its metrics of these splits."""
    measured = {split: getattr(trained, split) for split in splits}
    write_artifact(
        out,
        packed=trained.packed,
        network=trained.network,
        model=model,
        data=data,
        metrics={split: {"auc": m.auc, "logloss": m.logloss} for split, m in measured.items()},
        provenance={"seed": 5},
    )


@lru_cache(maxsize=1)
def exported() -> Exported:
    """Built once for all tests, which must not change it."""
    _KEPT.append(tempfile.TemporaryDirectory())
    folder = Path(_KEPT[-1].name)
    log = raw_log()
    pq.write_table(log, folder / "log.parquet")
    data = prepare(config_for(folder / "log.parquet"), folder / "prepared")
    trained = train(
        data,
        stats_of(data),
        make_method("frequency_cut", {"keep": 0.5, "bits": 4}),
        PROFILES["packed"],
        MODEL,
        TrainingConfig(batch_size=128, epochs=2, learning_rate=0.01),
        seed=5,
        device="cpu",
    )
    write_trained(folder / "model", trained, MODEL, data, ("valid", "test"))
    return Exported(folder, log, data, trained, folder / "model")
