from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from exported_model import config_for, exported

from autoembed.config import ConfigError
from autoembed.data.config import Categorical, LastSplit, RandomSplit, Split
from autoembed.metrics import Metrics
from autoembed.runtime import load
from autoembed.runtime.logs import log_batches


def close(found: Metrics, expected: Metrics) -> bool:
    # products of matrices round otherwise in batches of another size
    return (found.auc, found.logloss) == pytest.approx((expected.auc, expected.logloss), abs=1e-6)


def log_file() -> Path:
    return exported().folder / "log.parquet"


def test_a_raw_log_gives_the_metrics_of_training() -> None:
    model, trained = load(exported().artifact), exported().trained
    assert close(model.evaluate_log(config_for(log_file()), "test"), trained.test)
    assert close(model.evaluate_log(config_for(log_file()), "valid"), trained.valid)


def test_a_raw_log_gives_the_batches_of_raw_columns() -> None:
    model, log = load(exported().artifact), exported().log
    (batch,) = log_batches(config_for(log_file()), model.fields, model.dense)
    expected = model.encode({name: log[name] for name in log.column_names})
    for name in ("labels", "dense", "ids"):
        assert torch.equal(getattr(batch, name), getattr(expected, name))
    assert batch.bags.keys() == expected.bags.keys()
    for field, bag in batch.bags.items():
        assert torch.equal(bag.values, expected.bags[field].values)
        assert torch.equal(bag.offsets, expected.bags[field].offsets)


def test_text_is_read_as_the_same_log(tmp_path: Path) -> None:
    model, log = load(exported().artifact), exported().log
    test = log.filter(pc.equal(log["part"], "test"))
    tags = ["/".join(str(tag) for tag in tags or [] if tag is not None) for tags in test["tags"].to_pylist()]
    text = test.set_column(test.column_names.index("tags"), "tags", pa.array(tags))
    pacsv.write_csv(text, tmp_path / "test.csv")
    config = config_for(tmp_path / "test.csv").model_copy(update={"format": "csv"})
    categorical = {**config.categorical_columns("csv"), "tags": Categorical(bag=True, separator="/")}
    config = config.model_copy(update={"categorical": categorical})
    assert close(model.evaluate_log(config), exported().trained.test)


def test_the_rows_of_a_random_split_are_drawn_as_in_preparing() -> None:
    model = load(exported().artifact)
    drawn = Split(random=RandomSplit(valid=0.2, test=0.3))
    config = config_for(log_file()).model_copy(update={"split": drawn})
    sizes = [
        sum(len(batch) for batch in log_batches(config, model.fields, model.dense, split))
        for split in ("train", "valid", "test", None)
    ]
    assert sum(sizes[:3]) == sizes[3] == len(exported().log)
    assert 0.25 < sizes[2] / sizes[3] < 0.35


def test_logs_that_do_not_fit_the_model_are_refused(tmp_path: Path) -> None:
    model, config = load(exported().artifact), config_for(log_file())
    last = config.model_copy(update={"split": Split(last=LastSplit())})
    with pytest.raises(ConfigError, match="prepare the log first"):
        model.evaluate_log(last, "test")
    with pytest.raises(ConfigError, match="no split 'tset'"):
        model.evaluate_log(config, "tset")
    words = exported().log.set_column(5, "item", pa.array(["x"] * len(exported().log)))
    pq.write_table(words, tmp_path / "words.parquet")
    with pytest.raises(ConfigError, match="column 'item'"):
        model.evaluate_log(config_for(tmp_path / "words.parquet"))
    with pytest.raises(ConfigError, match="describe it as in training"):
        model.evaluate_log(config.model_copy(update={"dense": {"age": "standard"}}))
    broken = exported().log.set_column(0, "click", pa.array([7] * len(exported().log)))
    pq.write_table(broken, tmp_path / "broken.parquet")
    with pytest.raises(ConfigError, match="1500 of 1500 rows are bad"):
        model.evaluate_log(config_for(tmp_path / "broken.parquet"))


@pytest.mark.parametrize("trained_so", [True, False])
def test_numbers_are_described_in_buckets_or_not_as_in_training(trained_so: bool) -> None:
    model = load(exported().artifact)
    config = config_for(log_file())
    described = config.categorical_columns("parquet")
    buckets = [field.name for field in model.fields if field.vocabulary.kind == "buckets"]
    name = next(n for n, settings in described.items() if (n in buckets) is trained_so and not settings.bag)
    turned = described[name].model_copy(update={"bucketize": not trained_so})
    config = config.model_copy(update={"categorical": {**described, name: turned}})
    with pytest.raises(ConfigError, match=f"numbers of '{name}'.*{'add' if trained_so else 'remove'} 'buck"):
        model.evaluate_log(config)


def test_times_in_one_file_and_numbers_in_another_are_told(tmp_path: Path) -> None:
    model, log = load(exported().artifact), exported().log
    pq.write_table(log, tmp_path / "a.parquet")
    times = pa.array([0] * len(log), pa.timestamp("us"))
    pq.write_table(log.set_column(log.column_names.index("visits"), "visits", times), tmp_path / "b.parquet")
    with pytest.raises(ConfigError, match=r"b.parquet: column 'visits' holds times, but numbers in .*a.parq"):
        model.evaluate_log(config_for(tmp_path / "*.parquet"))
