"""Random splits are pure functions of seed and row; splits by order agree with a stable sort."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click_logs import ANCHORS, write_csv, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.config import ConfigError
from autoembed.data import columns, encode
from autoembed.data.config import ColumnSplit, DataConfig, LastSplit, RandomSplit, Split
from autoembed.data.prepare import prepare
from autoembed.data.split import NO_SPLIT, OrderSplit, column_codes, last_starts, random_codes

MASK = 2**64 - 1


def splitmix64(seed: int, position: int) -> int:
    """The published generator, one number at a time."""

    def mix(number: int) -> int:
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & MASK
        number = (number ^ (number >> 27)) * 0x94D049BB133111EB & MASK
        return number ^ (number >> 31)

    step = 0x9E3779B97F4A7C15
    return mix((mix((seed + step) & MASK) + (position + 1) * step) & MASK)


@settings(deadline=None)
@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40), st.integers(0, 50))
def test_random_codes_are_a_pure_function_of_seed_and_row(seed: int, first: int, rows: int) -> None:
    split = RandomSplit(valid=0.3, test=0.2, seed=seed)
    draws = [(splitmix64(seed, first + row) >> 11) / 2**53 for row in range(rows)]
    expected = [2 if draw < 0.2 else 1 if draw < 0.5 else 0 for draw in draws]
    assert random_codes(split, first, rows).tolist() == expected


def spoken(column: pa.Array, **lists: Any) -> list[int]:
    path = Path("log.parquet")
    return column_codes(pa.chunked_array([column]), ColumnSplit(column="part", **lists), path).tolist()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False, None], pa.bool_()),
        (["true", "False", None], pa.string()),
        (["TRUE", "0", None], pa.binary()),
        ([1, 0, None], pa.int8()),
        ([1.0, 0.0, float("nan")], pa.float32()),
        ([Decimal("1.00"), Decimal(0), None], pa.decimal128(5, 2)),
    ],
)
def test_numbers_and_truth_values_say_the_split_however_they_are_written(values: Any, kind: Any) -> None:
    column = pa.array(values, kind)
    assert spoken(column, train=[True], valid=["x"], test=[False, 5]) == [0, 2, NO_SPLIT]
    if not isinstance(values[0], str):
        assert spoken(column, train=["1"], test=[0]) == [0, 2, NO_SPLIT]


def test_a_column_without_a_type_says_no_split() -> None:
    assert spoken(pa.nulls(2)) == [NO_SPLIT, NO_SPLIT]


@pytest.mark.parametrize("value", [["train"], {"a": 1}, [("a", 1)]], ids=["list", "struct", "map"])
def test_a_split_column_that_holds_no_single_values_is_told(value: Any) -> None:
    kind = pa.map_(pa.string(), pa.int64()) if isinstance(value, list) and value != ["train"] else None
    with pytest.raises(
        ConfigError, match=r"log\.parquet: column 'part', which says the split, holds .*; write"
    ):
        spoken(pa.array([value], kind))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_that_are_to_be_left_out_may_hold_anything(tmp_path: Path, suffix: str) -> None:
    rows = [row | {"x": 1.0, "word": "a"} for row in ANCHORS]
    ignored = [
        {"label": None, "x": 1.0, "split": "later", "word": "b"},
        {"label": 7, "x": float("inf"), "split": "later", "word": None},
    ]
    if suffix == "csv":
        ignored.append({"label": "?", "x": "none", "split": "later", "word": "b"})
    path = (write_csv if suffix == "csv" else write_parquet)(tmp_path / f"log.{suffix}", [*rows, *ignored])
    config = DataConfig(
        path=str(path), dense=("x",), categorical=("word",), split=Split(column="split", ignore=("later",))
    )
    data = prepare(config, tmp_path / "out")
    assert data.manifest["bad_rows"]["count"] == 0
    assert (data.rows("train"), data.vocabulary(0).values.to_pylist()) == (2, ["a"])
    (write_csv if suffix == "csv" else write_parquet)(path, [*rows, *ignored, rows[0] | {"label": 2}])
    with pytest.raises(ConfigError, match="1 of 7 rows are bad"):
        prepare(config, tmp_path / "other")


def test_random_shares_are_met_and_seeds_differ() -> None:
    codes = random_codes(RandomSplit(valid=0.1, test=0.25), 0, 200_000)
    shares = np.bincount(codes) / len(codes)
    # five standard errors of a share of 200,000 draws
    np.testing.assert_allclose(shares, [0.65, 0.1, 0.25], atol=5 * np.sqrt(0.25 / 200_000))
    other = random_codes(RandomSplit(valid=0.1, test=0.25, seed=1), 0, 200_000)
    assert 0.3 < (codes != other).mean() < 0.7


KEYS = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e300, -1e-300]) | st.floats(allow_nan=False), min_size=3
)


@settings(deadline=None, max_examples=50)
@given(KEYS, st.data(), st.integers(1, 10))
def test_splits_by_a_column_agree_with_a_stable_sort(
    keys: list[float], data: st.DataObject, piece: int
) -> None:
    valid_start = data.draw(st.integers(0, len(keys) - 1))
    test_start = data.draw(st.integers(valid_start, len(keys) - 1))
    array = np.array(keys)
    pieces = [array[i : i + piece] for i in range(0, len(array), piece)]
    split = OrderSplit(lambda: pieces, (valid_start, test_start))
    found = np.concatenate([split.codes(part) for part in pieces])
    expected = np.zeros(len(keys), dtype=np.int8)
    order = np.argsort(array, kind="stable")
    expected[order[valid_start:]] = 1
    expected[order[test_start:]] = 2
    assert found.tolist() == expected.tolist()


def test_the_last_shares_are_rounded_to_rows() -> None:
    assert last_starts(LastSplit(valid=0.1, test=0.2), 1000) == (700, 800)
    assert last_starts(LastSplit(valid=0.1, test=0.1), 26) == (20, 23)


@pytest.mark.parametrize("by", ["order", "time"])
def test_the_last_rows_become_test(tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "READ_ROWS", 33)
    monkeypatch.setattr(encode, "READ_ROWS", 33)
    rows = [{"label": row % 2, "word": str(row), "time": row} for row in range(100)]
    if by == "time":
        np.random.default_rng(0).shuffle(rows)
    path = write_parquet(tmp_path / "log.parquet", rows)
    split = Split(last=LastSplit(by=by, valid=0.2, test=0.1))
    data = prepare(DataConfig(path=str(path), categorical=("word",), split=split), tmp_path / "out")
    assert [data.rows(name) for name in ("train", "valid", "test")] == [70, 20, 10]
    assert set(data.vocabulary(0).values.to_pylist()) == {str(row) for row in range(70)}


def test_a_column_of_days_can_be_the_split(tmp_path: Path) -> None:
    rows = [{"label": row["label"], "day": 21 + day, "word": "a"} for day in range(3) for row in ANCHORS]
    path = write_parquet(tmp_path / "log.parquet", rows)
    split = Split(column="day", train=(21,), valid=(22,), test=("23",))
    data = prepare(DataConfig(path=str(path), categorical=("word",), split=split), tmp_path / "out")
    assert [data.rows(name) for name in ("train", "valid", "test")] == [6, 6, 6]


def test_a_random_split_of_a_log_is_that_of_its_row_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "READ_ROWS", 33)
    monkeypatch.setattr(encode, "READ_ROWS", 33)
    rows = [{"label": row % 2, "word": str(row), "x": row} for row in range(100)]
    path = write_parquet(tmp_path / "log.parquet", rows)
    split = RandomSplit(valid=0.3, test=0.2, seed=5)
    config = DataConfig(path=str(path), categorical=("word",), dense={"x": "none"}, split=Split(random=split))
    data = prepare(config, tmp_path / "out")
    codes = random_codes(split, 0, 100)
    for code, name in enumerate(("train", "valid", "test")):
        (batch,) = data.batches(name, 100)
        assert batch.dense[:, 0].tolist() == np.flatnonzero(codes == code).tolist()
