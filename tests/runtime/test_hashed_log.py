"""A model of fields without a vocabulary, exported: raw values are hashed as preparing hashed them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from exported_model import write_trained

from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.prepare import prepare
from autoembed.export.artifact import verify_artifact
from autoembed.methods import make_method
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.runtime import Artifact, load
from autoembed.stats import stats_of
from autoembed.training import Trained, TrainingConfig, train

MODEL = ModelConfig(name="dnn", dim=4, hidden=(8,))
FIELDS: dict[str, Any] = {
    "user": Categorical(hash_rows=2000),
    "item": Categorical(hash_rows=50),
    "page": None,  # one with a vocabulary between them
    "tags": Categorical(bag=True, pooling="mean", hash_rows=30),
    "duration": Categorical(bucketize=True, hash_rows=500),
}


def raw_log(rows: int = 900) -> pa.Table:
    random = np.random.default_rng(0)
    user, item = random.integers(0, 400, rows), random.integers(0, 80, rows)

    def holes(values: list[Any]) -> list[Any]:
        return [None if random.random() < 0.05 else value for value in values]

    return pa.table(
        {
            "label": ((user + item + random.integers(0, 2, rows)) % 3 == 0).astype(int),
            "user": pa.array(holes([f"user number {i}" for i in user]), pa.string()),
            "item": pa.array(holes(item.tolist()), pa.int64()),
            "page": pa.array(random.integers(0, 9, rows)),
            "tags": pa.array(holes([[f"t{i}" for i in random.integers(0, 40, n % 4)] for n in user])),
            "duration": pa.array(holes(random.lognormal(3, 2, rows).tolist()), pa.float64()),
            "part": ["train"] * 500 + ["valid"] * 200 + ["test"] * 200,
        }
    )


def config_for(path: Path) -> DataConfig:
    return DataConfig(path=str(path), categorical=FIELDS, split=Split(column="part"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataConfig, pa.Table, Trained, Artifact]:
    folder = tmp_path_factory.mktemp("hashed")
    log = raw_log()
    pq.write_table(log, folder / "log.parquet")
    config = config_for(folder / "log.parquet")
    data = prepare(config, folder / "prepared")
    training = TrainingConfig(batch_size=64, epochs=2, learning_rate=0.05)
    method = make_method("fiited", {"keep": 0.2, "chunks": 2})
    trained = train(data, stats_of(data), method, PROFILES["packed"], MODEL, training, seed=1, device="cpu")
    write_trained(folder / "model", trained, MODEL, data)
    verify_artifact(folder / "model")
    return config, log, trained, load(folder / "model")


Served = tuple[DataConfig, pa.Table, Trained, Artifact]


def test_raw_values_give_the_metrics_that_training_measured(served: Served) -> None:
    config, log, trained, model = served
    columns = {name: log[name][700:] for name in log.column_names}
    for measured in (model.evaluate_log(config, "test"), model.evaluate_raw([columns])):
        # products of matrices round otherwise in batches of another size
        assert measured.logloss == pytest.approx(trained.test.logloss, abs=1e-6)
        assert measured.auc == pytest.approx(trained.test.auc, abs=1e-6)


def test_an_id_reads_its_row_wherever_and_beside_whatever_it_is_served(served: Served) -> None:
    _, log, _, model = served
    columns = {name: log[name][700:760] for name in log.column_names}
    together = model.encode(columns)
    for row in range(60):
        alone = model.encode({name: column[row : row + 1] for name, column in columns.items()})
        assert torch.equal(alone.ids[0], together.ids[row])
    assert (together.ids[:, 0] == 0).tolist() == columns["user"].is_null().to_pylist(), "only missing ones"


def test_the_same_log_as_text_is_served_alike(served: Served, tmp_path: Path) -> None:
    _, log, trained, model = served
    tags = ["|".join(bag) if bag else None for bag in log["tags"].to_pylist()]
    position = log.column_names.index("tags")
    pyarrow.csv.write_csv(log.set_column(position, "tags", pa.array(tags)), tmp_path / "log.csv")
    measured = model.evaluate_log(config_for(tmp_path / "log.csv"), "test")
    assert measured.logloss == pytest.approx(trained.test.logloss, abs=1e-6)


def test_hashed_fields_bring_no_vocabulary_and_the_manifest_says_how_they_are_hashed(served: Served) -> None:
    model = served[3]
    sizes = model.manifest["bytes"]
    assert sizes["vocabulary"] == sizes["vocabulary_unpruned"] == 9 * 8, "of `page` alone"
    hashed = {entry["name"]: entry.get("hash_rows") for entry in model.manifest["data"]["fields"]}
    assert hashed == {"user": 2000, "item": 50, "page": None, "tags": 30, "duration": 500}


def test_a_column_of_another_type_is_named(served: Served) -> None:
    _, log, _, model = served
    columns = {name: log[name][:3] for name in log.column_names}
    with pytest.raises(ValueError, match="column 'user': this field holds text, got int64; pass strings"):
        model.encode({**columns, "user": [1, 2, 3]})
