"""Opening prepared data: damage is refused; batches hold every row once, in the promised order."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click_logs import ANCHORS, write_parquet

from autoembed.config import ConfigError
from autoembed.data.batch import Batch
from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData, open_prepared
from autoembed.data.rows import pooled_batches

ROWS = 500


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Row i of train has the id str(i), the dense value i, and i % 4 elements in its bag."""
    folder = tmp_path_factory.mktemp("prepared")
    rows = [
        {"label": i % 2, "split": "train", "id": i, "x": float(i), "bag": [str(i)] * (i % 4), "odd": i % 2}
        for i in range(ROWS)
    ]
    rows += [row | {"x": 0.0, "bag": []} for row in ANCHORS if row["split"] != "train"]
    config = DataConfig(
        path=str(write_parquet(folder / "log.parquet", rows)),
        dense={"x": "none"},
        categorical={"id": None, "bag": Categorical(bag=True, pooling="mean"), "odd": None},
        split=Split(column="split"),
    )
    return prepare(config, folder / "out")


def order_of(batches: list[Batch]) -> list[int]:
    return [int(x) for batch in batches for x in batch.dense[:, 0]]


def check_rows(data: PreparedData, batches: list[Batch]) -> None:
    """Every column of an example belongs to the same row of the log."""
    for batch in batches:
        assert (batch.labels.dtype, batch.dense.dtype, batch.ids.dtype) == (
            torch.float32,
            torch.float32,
            torch.int64,
        )
        rows = batch.dense[:, 0].long()
        np.testing.assert_array_equal(batch.labels, rows % 2)
        np.testing.assert_array_equal(batch.ids[:, 0], data.vocabulary(0).lookup(rows.tolist()))
        np.testing.assert_array_equal(batch.ids[:, 1], 0)
        bag = batch.bags[1]
        assert (bag.offsets[0], bag.pooling, len(bag.offsets)) == (0, "mean", len(batch) + 1)
        np.testing.assert_array_equal(bag.offsets.diff(), rows % 4)
        repeated = torch.repeat_interleave(rows, rows % 4)
        values = data.vocabulary(1).lookup([str(int(row)) for row in repeated])
        np.testing.assert_array_equal(bag.values, values)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 499, 500, 10_000])
def test_without_a_seed_batches_follow_the_log(data: PreparedData, batch_size: int) -> None:
    batches = list(data.batches("train", batch_size))
    assert order_of(batches) == list(range(ROWS))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    check_rows(data, batches)


def test_with_a_seed_every_row_comes_once_in_an_order_of_the_seed(data: PreparedData) -> None:
    batches = list(data.batches("train", 64, shuffle_seed=3))
    assert sorted(order_of(batches)) == list(range(ROWS))
    assert order_of(batches) == order_of(list(data.batches("train", 64, shuffle_seed=3)))
    assert order_of(batches) != order_of(list(data.batches("train", 64, shuffle_seed=4)))
    assert order_of(batches) != list(range(ROWS))
    check_rows(data, batches)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_split_beyond_memory_is_read_from_maps(data: PreparedData, seed: int | None) -> None:
    mapped = open_prepared(data.path, memory_limit_bytes=0)
    batches = list(mapped.batches("train", 64, shuffle_seed=seed))
    check_rows(mapped, batches)
    assert sorted(order_of(batches)) == list(range(ROWS))
    assert [len(batch) for batch in batches[:-1]] == [64] * 7
    if seed is None:
        assert order_of(batches) == list(range(ROWS))
    assert order_of(batches) == order_of(list(mapped.batches("train", 64, shuffle_seed=seed)))


@pytest.mark.parametrize(("block_rows", "pool_rows"), [(16, 64), (7, 100), (1000, 128), (1, 1)])
def test_pools_mix_blocks_and_lose_no_row(data: PreparedData, block_rows: int, pool_rows: int) -> None:
    columns = data._columns("train", mapped=True)
    batches = list(pooled_batches(columns.read, ROWS, 32, 1, block_rows=block_rows, pool_rows=pool_rows))
    check_rows(data, batches)
    assert sorted(order_of(batches)) == list(range(ROWS))
    assert all(len(batch) == 32 for batch in batches[:-1])
    assert np.mean(np.abs(np.diff(order_of(batches))) == 1) < 0.2, "neighbours are mixed"


def test_unknown_splits_and_empty_batches_are_refused(data: PreparedData) -> None:
    with pytest.raises(ValueError, match="no split 'dev'; splits are train, valid, test"):
        data.labels("dev")
    with pytest.raises(ValueError, match="batch size of 0"):
        data.batches("train", 0)


@pytest.fixture
def copied(data: PreparedData, tmp_path: Path) -> Path:
    for file in data.path.rglob("*"):
        if file.is_file():
            place = tmp_path / file.relative_to(data.path)
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(file.read_bytes())
    return tmp_path


def test_a_missing_or_shortened_file_is_refused(copied: Path) -> None:
    file = copied / "train" / "field_000.npy"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(ConfigError, match=r"damaged, train/field_000.npy has \d+ bytes instead of"):
        open_prepared(copied)
    file.unlink()
    with pytest.raises(ConfigError, match=r"train/field_000.npy is missing; prepare the data again"):
        open_prepared(copied)


def test_an_altered_byte_anywhere_is_found_by_verifying(copied: Path) -> None:
    open_prepared(copied, verify=True)
    for file in sorted(copied.rglob("*.npy")):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ConfigError, match=f"{file.name} was altered"):
            open_prepared(copied, verify=True)
        file.write_bytes(content)


def test_a_damaged_altered_or_foreign_manifest_is_refused(copied: Path) -> None:
    path = copied / "manifest.json"
    text = path.read_text()
    for content, message in (
        (text[:-30], "damaged"),
        (text.replace('"rows": 501', '"rows": 500'), "altered since it was written"),
        (json.dumps({"format": 99}), "format version 99, this program reads 1"),
        (json.dumps({"format": 1}), "keys are missing"),
        ("[]", "format version None"),
    ):
        assert content != text
        path.write_text(content)
        with pytest.raises(ConfigError, match=message):
            open_prepared(copied)
    path.unlink()
    with pytest.raises(ConfigError, match="no prepared data here"):
        open_prepared(copied)
