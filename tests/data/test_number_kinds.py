"""A column holds numbers or times in all files; times of any unit are compared."""

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click_logs import ANCHORS, write_csv, write_parquet

from autoembed.config import ConfigError
from autoembed.data.config import DataConfig, LastSplit, Split
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData

BY_TIME = Split(last=LastSplit(by="t", valid=0.25, test=0.25))
NOON = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)


def rows(values: list[Any], word: str = "a") -> list[dict[str, Any]]:
    return [
        {"label": i % 2, "split": a["split"], "word": word, "t": t}
        for i, (a, t) in enumerate(zip(ANCHORS * len(values), values, strict=False))
    ]


def prepared(tmp_path: Path, suffix: str = "parquet", **changes: Any) -> PreparedData:
    settings: dict[str, Any] = {"categorical": ("word",), "split": BY_TIME} | changes
    return prepare(DataConfig(path=str(tmp_path / f"*.{suffix}"), **settings), tmp_path / "out")


EARLIER = [NOON - timedelta(days=10_000, seconds=i) for i in range(8)]
SECONDS = [NOON.timestamp() + i for i in range(8)]


@pytest.mark.parametrize("dense", [(), ("t",)])
@pytest.mark.parametrize("swap", [False, True])
def test_numbers_in_one_file_and_times_in_another_are_told(tmp_path: Path, dense: Any, swap: bool) -> None:
    values: list[list[Any]] = [EARLIER, SECONDS] if swap else [SECONDS, EARLIER]
    kinds = ("times", "numbers") if swap else ("numbers", "times")
    write_parquet(tmp_path / "a.parquet", rows(values[0]))
    write_parquet(tmp_path / "b.parquet", rows(values[1]))
    with pytest.raises(ConfigError) as error:
        prepared(tmp_path, dense=dense, split=Split(column="split") if dense else BY_TIME)
    assert str(error.value) == (
        f"{tmp_path / 'b.parquet'}: column 't' holds {kinds[1]}, but {kinds[0]} in {tmp_path / 'a.parquet'}; "
        "write the same into all files"
    )


def test_numbers_in_one_text_file_and_times_in_another_are_told(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", rows(SECONDS))
    write_csv(tmp_path / "b.csv", rows([time.isoformat() for time in EARLIER]))
    with pytest.raises(ConfigError, match=r"b\.csv: column 't' holds times, but numbers in .*a\.csv; write"):
        prepared(tmp_path, "csv")


def test_a_file_without_a_value_in_the_column_says_nothing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows([None] * 6), t=pa.float64())
    write_parquet(tmp_path / "b.parquet", rows([date(2024, 1, i + 1) for i in range(6)]))
    write_parquet(tmp_path / "c.parquet", rows([None] * 6), t=pa.null())
    write_parquet(tmp_path / "d.parquet", rows(EARLIER[:6]))
    assert prepared(tmp_path, dense=("t",), split=Split(column="split")).rows("train") == 8


@pytest.mark.parametrize("dense", [(), ("t",)])
def test_nanoseconds_in_parquet_are_cut_off(tmp_path: Path, dense: Any) -> None:
    first = 1_700_000_000_000_000_001
    late = rows([first + 5000 * i for i in range(8)], "late")
    early = rows([(first - 10**15) // 1000 + i for i in range(8)], "early")
    write_parquet(tmp_path / "a.parquet", late, t=pa.timestamp("ns"))
    write_parquet(tmp_path / "b.parquet", early, t=pa.timestamp("us", "UTC"))
    data = prepared(tmp_path, dense=dense)
    assert data.vocabulary(0).values.to_pylist() == ["early"]


def test_a_time_too_far_away_for_microseconds_is_told(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows([2**60 + i for i in range(8)]), t=pa.timestamp("ms"))
    with pytest.raises(ConfigError, match=r"a\.parquet: column 't' holds a time that is too far away"):
        prepared(tmp_path)
