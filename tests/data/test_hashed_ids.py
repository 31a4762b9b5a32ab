"""Ids of a field without a vocabulary: hashed alike everywhere, counted without being kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click_logs import ANCHORS, SPLITS, write_csv, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.config import ConfigError
from autoembed.data import collect, encode
from autoembed.data.config import Categorical, DataConfig, Split, check
from autoembed.data.hashed_ids import HashedIds, distinct_ids, sharing_ids
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData
from autoembed.stats import stats_of

WORD = 2**64 - 1


def mixed(word: int) -> int:
    """The finaliser of splitmix64, in Python's exact integers."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def number_row(value: int, hash_rows: int) -> int:
    return mixed(value + 2**63) % hash_rows + 1


def text_row(value: str, hash_rows: int) -> int:
    """As docs/format.md says it."""
    raw = value.encode()
    words = [int.from_bytes(raw[i : i + 8].ljust(8, b"\0"), "big") for i in range(0, max(len(raw), 1), 8)]
    key = words[0]
    if len(raw) > 8 or 0 in raw:
        key = mixed((key + mixed(len(raw))) & WORD)
        for word in words[1:]:
            key = mixed((key * 0x9E3779B97F4A7C15 + word) & WORD)
    return mixed(key) % hash_rows + 1


def prepared(folder: Path, rows: list[dict[str, Any]], *, text: bool = False, **fields: Any) -> PreparedData:
    write = write_csv if text else write_parquet
    config = DataConfig(
        path=str(write(folder / f"log.{'csv' if text else 'parquet'}", [*rows, *ANCHORS])),
        categorical=fields,
        split=Split(column="split"),
    )
    return prepare(config, folder / "out")


def log(size: int, ids: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(size)
    return [
        {
            "label": int(random.integers(0, 2)),
            "split": SPLITS[int(random.integers(0, 3))],
            "number": None if random.random() < 0.05 else int(random.integers(0, ids)) - ids // 2,
            "word": None if random.random() < 0.05 else f"a long word {random.integers(0, ids)}",
            "bag": [f"b{i}" for i in random.integers(0, ids, int(random.integers(0, 3)))],
        }
        for _ in range(size)
    ]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(1, 2**31 - 2))
def test_numbers_are_hashed_as_the_formula_says(values: list[int | None], hash_rows: int) -> None:
    rows = HashedIds("integers", hash_rows).lookup(pa.array(values, pa.int64()))
    assert rows.tolist() == [0 if v is None else number_row(v, hash_rows) for v in values]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=20), st.integers(1, 2**31 - 2))
def test_text_is_hashed_as_the_formula_says_and_every_value_by_itself(
    values: list[str], hash_rows: int
) -> None:
    ids = HashedIds("strings", hash_rows)
    expected = [text_row(value, hash_rows) for value in values]
    assert ids.lookup(values).tolist() == expected
    assert [int(ids.lookup([value])[0]) for value in values] == expected


def test_the_hash_of_the_format_does_not_change() -> None:
    words = ["", "a", "a longer word", "ünïcödé wörds of the format"]
    assert HashedIds("strings", 10**6).lookup(words).tolist() == [1, 93299, 920171, 320789]
    assert HashedIds("integers", 10**6).lookup([0, 1, -1]).tolist() == [447051, 670463, 201534]
    assert HashedIds("buckets", 10**6).lookup([0.5, None]).tolist() == [447051, 0]


def test_text_and_numbers_are_never_confused() -> None:
    with pytest.raises(TypeError, match="this field holds text, got int64; pass strings"):
        HashedIds("strings", 5).lookup([1])
    with pytest.raises(TypeError, match="this field holds numbers, got string; pass numbers"):
        HashedIds("integers", 5).lookup(["1"])


def test_hashed_rows_cannot_be_cut_off() -> None:
    ids = HashedIds("integers", 5)
    assert ids.truncated(6) is ids and ids.tensors() == {} and ids.nbytes == 0
    with pytest.raises(ValueError, match="hashed to 6 rows, the last ones cannot be cut off at 3"):
        ids.truncated(3)


@pytest.mark.parametrize("text", [False, True])
def test_prepared_rows_are_those_that_looking_up_gives(tmp_path: Path, text: bool) -> None:
    hashed = Categorical(hash_rows=40)
    rows = log(300, 60)
    data = prepared(
        tmp_path, rows, text=text, word=hashed, number=hashed, bag=Categorical(bag=True, hash_rows=7)
    )
    assert [field.rows for field in data.fields] == [41, 41, 8]
    assert not list((tmp_path / "out" / "vocabulary").iterdir()), "no id is kept"
    everything = [*rows, *ANCHORS]
    for split in SPLITS:
        (batch,) = data.batches(split, 1000)
        mine = [row for row in everything if row["split"] == split]
        for field, name in enumerate(("word", "number")):
            values = [row.get(name) for row in mine]
            values = [None if v is None else str(v) for v in values] if text else values
            assert batch.ids[:, field].tolist() == data.vocabulary(field).lookup(values).tolist()
        elements = [value for row in mine for value in row.get("bag") or []]
        assert batch.bags[2].values.tolist() == data.vocabulary(2).lookup(elements).tolist()
        assert batch.bags[2].lengths.tolist() == [len(row.get("bag") or []) for row in mine]
    (train,) = data.batches("train", 1000)
    for field in (0, 1):
        assert data.counts(field).tolist() == np.bincount(train.ids[:, field], minlength=41).tolist()
        assert data.counts(field)[0] == data.manifest["fields"][field]["missing"]["train"] > 0
    assert data.counts(2).tolist() == np.bincount(train.bags[2].values, minlength=8).tolist()
    assert [field.ranked for field in stats_of(data).fields] == [False] * 3


def test_preparing_keeps_no_table_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (collect, encode):
        monkeypatch.setattr(module, "IdTable", None)  # to be called is an error
    data = prepared(tmp_path, log(50, 20), word=Categorical(hash_rows=1))
    assert data.fields[0].rows == 2


def test_counts_are_the_same_in_far_more_rows_than_there_are_look_ups(tmp_path: Path) -> None:
    for name in ("few", "many"):
        (tmp_path / name).mkdir()
    rows = log(300, 5)
    few = prepared(tmp_path / "few", rows, word=Categorical(hash_rows=100))
    many = prepared(tmp_path / "many", rows, word=Categorical(hash_rows=1_000_003))
    assert sorted(few.counts(0)[1:])[-5:] == sorted(many.counts(0)[1:])[-5:]
    assert few.counts(0).sum() == many.counts(0).sum() and few.counts(0)[0] == many.counts(0)[0]
    for data in (few, many):
        assert isinstance(data.counts(0), np.memmap), "rows that nothing reads take no memory"
        (train,) = data.batches("train", 1000)
        found = np.bincount(train.ids[:, 0], minlength=data.fields[0].rows)
        assert np.array_equal(data.counts(0), found)


def test_other_fields_are_prepared_as_before(tmp_path: Path) -> None:
    rows = log(100, 20)
    for name in ("alone", "beside"):
        (tmp_path / name).mkdir()
    alone = prepared(tmp_path / "alone", rows, number=None)
    beside = prepared(tmp_path / "beside", rows, number=None, word=Categorical(hash_rows=9))
    assert alone.counts(0).tolist() == beside.counts(0).tolist()
    assert [field.ranked for field in stats_of(beside).fields] == [True, False]
    assert alone.manifest["config"]["categorical"] == {"number": None}
    dumped = Categorical(bag=True).model_dump()
    assert "hash_rows" not in dumped and "weights" not in dumped, "what was prepared before stays the same"
    assert Categorical(hash_rows=9).model_dump()["hash_rows"] == 9


def test_a_column_that_changes_its_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    write_parquet(tmp_path / "logs" / "a.parquet", [{"id": 1, **ANCHORS[0]}, *ANCHORS])
    write_parquet(tmp_path / "logs" / "b.parquet", [{"id": "1", **ANCHORS[0]}])
    config = DataConfig(
        path=str(tmp_path / "logs" / "*.parquet"),
        categorical={"id": Categorical(hash_rows=5)},
        split=Split(column="split"),
    )
    with pytest.raises(ConfigError, match="'id' holds integers in one file and strings in another"):
        prepare(config, tmp_path / "out")


def test_min_count_and_hash_rows_exclude_each_other() -> None:
    fields = {"user": Categorical(min_count=2, hash_rows=5)}
    with pytest.raises(ConfigError, match="column 'user' has both min_count and hash_rows"):
        check(DataConfig(path="x.csv", categorical=fields, split=Split(column="split")))
    for_others = DataConfig(
        path="x.csv",
        categorical={"user": Categorical(hash_rows=5), "item": None},
        min_count=2,
        split=Split(column="split"),
    )
    check(for_others)


@pytest.mark.parametrize("load", [0.1, 1.0, 3.0])
def test_distinct_ids_are_told_from_the_rows_that_they_fill(load: float) -> None:
    hash_rows = 20_000
    ids = int(load * hash_rows)
    found = HashedIds("integers", hash_rows).lookup(pa.array(np.arange(ids) * 17 - 5))
    rows, sharing = np.unique(found, return_counts=True)
    error = np.sqrt(hash_rows * (np.exp(load) - load - 1))
    assert abs(distinct_ids(len(rows), hash_rows) - ids) < 4 * error + 1
    measured = sharing[sharing > 1].sum() / ids
    assert sharing_ids(ids, hash_rows) == pytest.approx(measured, abs=0.01)


def test_few_and_no_ids_are_told_exactly() -> None:
    assert distinct_ids(0, 10) == 0 and sharing_ids(0, 10) == sharing_ids(1, 1) == 0
    assert distinct_ids(1, 1) == 1 and sharing_ids(2, 1) == 1
    assert distinct_ids(3, 10**9) == pytest.approx(3)
    assert distinct_ids(10, 10) > 20, "a full table means many ids"
