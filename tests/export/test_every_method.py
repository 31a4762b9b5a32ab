"""Every method from the raw log to the served model: its file and its predictions are those trained."""

from pathlib import Path

import pytest
from exported_model import MODEL, config_for, exported, write_trained
from methods.settings import methods
from methods.test_contract import serving

from autoembed.export.artifact import verify_artifact
from autoembed.methods.base import Method
from autoembed.plan import PROFILES, plan_bytes
from autoembed.runtime import load
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, train

TRAINING = TrainingConfig(batch_size=256, epochs=1, learning_rate=0.02)


@pytest.mark.parametrize("method", methods(), ids=str)
def test_the_exported_model_is_the_trained_one(method: Method, tmp_path: Path) -> None:
    data = exported().data
    profile = PROFILES[serving(method)]
    trained = train(data, stats_of(data), method, profile, MODEL, TRAINING, seed=2, device="cpu")
    write_trained(tmp_path / "model", trained, MODEL, data)
    size = (tmp_path / "model" / "tables.safetensors").stat().st_size
    assert size == trained.bytes.total == plan_bytes(trained.packed.plan).total
    verify_artifact(tmp_path / "model")
    served = load(tmp_path / "model").evaluate_log(config_for(exported().folder / "log.parquet"), "test")
    assert served.auc == pytest.approx(trained.test.auc, abs=1e-4)
    assert served.logloss == pytest.approx(trained.test.logloss, abs=1e-5)
