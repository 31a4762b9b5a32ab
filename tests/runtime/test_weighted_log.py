"""A model of weighted bags, exported: raw logs and raw columns give what training measured."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exported_model import write_trained

from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.prepare import prepare
from autoembed.methods import make_method
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.runtime import load
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, train

MODEL = ModelConfig(name="dnn", dim=4, hidden=(8,))


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_an_exported_model_weighs_bags_as_training_did(tmp_path: Path, pooling: str) -> None:
    random = np.random.default_rng(0)
    sizes = random.integers(0, 4, 600)
    log = pa.table(
        {
            "label": random.integers(0, 2, 600),
            "user": random.integers(0, 20, 600),
            "tags": pa.array([random.integers(0, 9, n).tolist() for n in sizes], pa.list_(pa.int64())),
            "scores": pa.array([random.random(n).tolist() for n in sizes], pa.list_(pa.float64())),
            "part": ["train"] * 400 + ["valid"] * 100 + ["test"] * 100,
        }
    )
    pq.write_table(log, tmp_path / "log.parquet")
    config = DataConfig(
        path=str(tmp_path / "log.parquet"),
        categorical={"user": None, "tags": Categorical(bag=True, pooling=pooling, weights="scores")},
        split=Split(column="part"),
    )
    data = prepare(config, tmp_path / "out")
    training = TrainingConfig(batch_size=64, epochs=2, learning_rate=0.05)
    method = make_method("uniform", {"bits": 8})
    trained = train(data, stats_of(data), method, PROFILES["packed"], MODEL, training, seed=1, device="cpu")
    write_trained(tmp_path / "model", trained, MODEL, data)
    model = load(tmp_path / "model")
    assert model.fields[1].weights == "scores"
    # products of matrices round otherwise in batches of another size
    assert model.evaluate_log(config, "test").logloss == pytest.approx(trained.test.logloss, abs=1e-6)
    columns = {name: log[name][500:] for name in log.column_names}
    assert model.evaluate_raw([columns]).logloss == pytest.approx(trained.test.logloss, abs=1e-6)
    doubled = pa.array([[2 * w for w in weights] for weights in columns["scores"].to_pylist()])
    differ = (model.predict_raw({**columns, "scores": doubled}) - model.predict_raw(columns)).abs().max()
    assert (differ > 1e-4) if pooling == "sum" else (differ < 1e-6), "only sums know the size of weights"
