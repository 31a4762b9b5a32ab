"""Generated logs: the promised shape, the promised tail, and clicks that depend on the ids."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from autoembed.data.generate import (
    CRITEO_KAGGLE_CARDINALITIES,
    GeneratedSpec,
    config_of,
    criteo_kaggle,
    generate,
    small,
)
from autoembed.data.prepare import prepare

TINY = GeneratedSpec(3000, (500, 20, 60), dense=2, bags=(2,))


def changed(**changes: Any) -> GeneratedSpec:

    return replace(TINY, **changes)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_generated_log_can_be_prepared_with_its_own_configuration(tmp_path: Path, format: Any) -> None:
    spec = changed(format=format)
    log = generate(spec, tmp_path / f"log.{format}")
    data = prepare(config_of(spec, log), tmp_path / "out")
    assert sum(data.rows(split) for split in ("train", "valid", "test")) == spec.rows
    assert [field.bag for field in data.fields] == [False, False, True]
    assert [entry["train_ids"] for entry in data.manifest["fields"]][1:] == [20, 60]
    assert data.manifest["fields"][0]["missing"]["train"] > 0
    assert abs(data.positives("train") / data.rows("train") - spec.base_rate) < 0.05


def test_the_same_spec_gives_the_same_file_and_a_seed_another(tmp_path: Path) -> None:
    one, two, other = (
        generate(spec, tmp_path / name).read_bytes()
        for spec, name in ((TINY, "1"), (TINY, "2"), (changed(seed=1), "3"))
    )
    assert one == two
    assert one != other


def test_all_formats_hold_the_same_rows(tmp_path: Path) -> None:
    spec = criteo_kaggle(200)
    criteo = generate(spec, tmp_path / "log.txt")

    in_parquet = replace(spec, format="parquet")
    parquet = generate(in_parquet, tmp_path / "log.parquet")
    specs = ((spec, criteo), (in_parquet, parquet))
    lines = [line.split("\t") for line in criteo.read_text().splitlines()]
    table = pq.read_table(parquet).to_pylist()
    assert [["" if value is None else str(value) for value in row.values()] for row in table] == lines
    assert {len(line) for line in lines} == {40}
    prints = {prepare(config_of(one, log), tmp_path / one.format).fingerprint for one, log in specs}
    assert len(prints) == 1


def test_ids_follow_the_stated_power_law(tmp_path: Path) -> None:
    spec = GeneratedSpec(60_000, (1000,), exponent=1.2, missing=0.0)
    data = prepare(config_of(spec, generate(spec, tmp_path / "log.csv")), tmp_path / "out")
    counts = data.counts(0)[1:]
    slope = np.polyfit(np.log(np.arange(5, 101)), np.log(counts[4:100]), 1)[0]
    assert abs(slope + 1.2) < 0.1


def test_the_clicks_depend_on_the_ids_head_and_tail(tmp_path: Path) -> None:
    """Click rates of an id in train order the rows of test well above chance, for rare ids too."""
    spec = GeneratedSpec(40_000, (3000, 300), signal=2.0, missing=0.0)
    data = prepare(config_of(spec, generate(spec, tmp_path / "log.csv")), tmp_path / "out")
    (train,), (test,) = (list(data.batches(split, 10**6)) for split in ("train", "test"))
    scores = np.zeros(len(test))
    for field in (0, 1):
        rows = train.ids[:, field].numpy()
        clicks = np.bincount(rows, train.labels.numpy(), minlength=data.fields[field].rows)
        scores += np.log((clicks + 1) / (data.counts(field) - clicks + 3))[test.ids[:, field].numpy()]
    assert roc_auc_score(test.labels, scores) > 0.72
    rare = data.counts(0)[test.ids[:, 0].numpy()] <= 5
    assert rare.sum() > 300
    assert roc_auc_score(test.labels.numpy()[rare], scores[rare]) > 0.65


def test_specs_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for spec, message in (
        (changed(format="criteo"), "13 counts, 26 fields"),
        (changed(cardinalities=()), "at least one id"),
        (changed(base_rate=1.5), "base_rate"),
    ):
        with pytest.raises(ValueError, match=message):
            generate(spec, tmp_path / "log")
    assert not list(tmp_path.iterdir())


def test_the_quickstart_log_is_small_quick_and_has_a_tail(tmp_path: Path) -> None:
    spec = small()
    start = time.process_time()
    data = prepare(config_of(spec, generate(spec, tmp_path / "log.csv")), tmp_path / "out")
    assert time.process_time() - start < 10
    assert 60_000 <= spec.rows <= 100_000
    assert sum(field.rows for field in data.fields) > 8000
    least_seen = data.counts(1)[-1000:]
    assert least_seen.max() < 0.02 * data.counts(1)[1], "a long tail"
    assert sum(field.bag for field in data.fields) == 1


def test_criteo_kaggle_has_its_cardinalities() -> None:
    assert len(CRITEO_KAGGLE_CARDINALITIES) == 26
    assert sum(CRITEO_KAGGLE_CARDINALITIES) == 33_762_577
