"""Preparing against an encoder that is slow and obvious, and what the manifest says of the data."""

import math
import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click_logs import ANCHORS, SPLITS, encode, write_csv, write_parquet
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoembed.data import columns, delimited, parquet
from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.prepare import PrepareProgress, prepare
from autoembed.data.prepared import PreparedData, open_prepared

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\0|", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
)
WORDS = st.sampled_from(["a", "b", "ab", "12345678", "123456789", "ünïcödé", "x" * 40]) | TEXT
NUMBERS = st.sampled_from([0, 1, -1, 2**62, -(2**62), 7]) | st.integers(-50, 50)
DENSE = st.none() | st.floats(-1e6, 1e6, allow_nan=False)
ROW = st.fixed_dictionaries(
    {
        "label": st.integers(0, 1),
        "split": st.sampled_from(SPLITS),
        "word": st.none() | WORDS,
        "number": st.none() | NUMBERS,
        "bag": st.none() | st.lists(st.sampled_from(["p", "q", "a long element"]), max_size=3),
        "log": DENSE,
        "standard": DENSE,
        "none": DENSE,
    }
)
VIEWS = [getattr(pa, name)() for name in ("string_view", "binary_view") if hasattr(pa, name)]
LOG = st.lists(ROW, min_size=1, max_size=40).map(lambda rows: [*rows, *ANCHORS])
NEARLY_CONSTANT = [
    {
        **{"label": 0, "split": split, "standard": value},
        **dict.fromkeys(("word", "number", "bag", "log", "none")),
    }
    for split, value in (("train", 0.0), ("train", 2.3e-104), ("valid", 1.0))
]


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Nothing here is about power cuts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


def config_for(path: Path, min_count: int, numeric_field: bool) -> DataConfig:
    fields = {"word": None, "bag": Categorical(bag=True, pooling="mean")}
    if numeric_field:
        fields["number"] = None
    return DataConfig(
        path=str(path),
        dense={"log": "log", "standard": "standard", "none": "none"},
        categorical=fields,
        min_count=min_count,
        split=Split(column="split"),
    )


def rows_read(data: PreparedData, field: int, split: str) -> list[Any]:
    """The rows of a field in a split, in the order of the log."""
    found: list[Any] = []
    for batch in data.batches(split, 7):
        if field in batch.bags:
            bag = batch.bags[field]
            ends = bag.offsets.tolist()
            found += [bag.values[a:b].tolist() for a, b in pairwise(ends)]
        else:
            found += batch.ids[:, field].tolist()
    return found


def check_against_reference(data: PreparedData, rows: list[dict[str, Any]], min_count: int) -> None:
    for field, entry in enumerate(data.fields):
        encoded, counts, row_of = encode(rows, entry.name, min_count)
        assert data.counts(field).tolist() == counts
        assert entry.rows == len(counts)
        for split in SPLITS:
            wanted = [r for r, row in zip(encoded, rows, strict=True) if row["split"] == split]
            if entry.bag:
                wanted = [bag if isinstance(bag, list) else [bag] for bag in wanted]
            assert rows_read(data, field, split) == wanted
        vocabulary = data.vocabulary(field)
        assert vocabulary.lookup(list(row_of)).tolist() == list(row_of.values())
    for split in SPLITS:
        mine = [row for row in rows if row["split"] == split]
        assert data.rows(split) == len(mine)
        assert data.labels(split).tolist() == [row["label"] for row in mine]
        found = np.concatenate([batch.dense.numpy() for batch in data.batches(split, 7)])
        np.testing.assert_allclose(found, dense_reference(rows, mine), rtol=2e-6, atol=1e-6)


def dense_reference(rows: list[dict[str, Any]], mine: list[dict[str, Any]]) -> np.ndarray:
    seen = [row.get("standard") for row in rows if row["split"] == "train"]
    seen = [value for value in seen if value is not None]
    mean = sum(seen) / len(seen) if seen else 0.0
    std = math.sqrt(sum((value - mean) ** 2 for value in seen) / len(seen)) if seen else 0.0
    std = std if std > max(1e-12 * abs(mean), 1e-30) else 1.0
    columns = []
    for row in mine:
        log, standard, none = (row.get(name) for name in ("log", "standard", "none"))
        columns.append(
            [
                0.0 if log is None else math.copysign(math.log1p(abs(log)), log),
                0.0 if standard is None else (standard - mean) / std,
                none or 0.0,
            ]
        )
    return np.array(columns)


@settings(deadline=None, max_examples=25)
@given(LOG, st.integers(1, 3), st.sampled_from([4, 1000]))
@example([*NEARLY_CONSTANT, *ANCHORS], 1, 4)
def test_parquet_is_encoded_as_the_slow_reference_does(
    rows: list[dict[str, Any]], min_count: int, chunk_rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "CHUNK_ROWS", chunk_rows)
        patch.setattr(columns, "READ_ROWS", chunk_rows + 1)
        types = {
            "word": pa.string(),
            "number": pa.int64(),
            "bag": pa.list_(pa.string()),
            **{name: pa.float64() for name in ("log", "standard", "none")},
        }
        path = write_parquet(Path(folder) / "log.parquet", rows, **types)
        data = prepare(config_for(path, min_count, True), Path(folder) / "out")
        empty = [dict(row, bag=row.get("bag") or []) for row in rows]
        check_against_reference(data, empty, min_count)
        open_prepared(data.path, verify=True)


@settings(deadline=None, max_examples=25)
@given(LOG, st.integers(1, 3), st.sampled_from([1, 3]), st.sampled_from([100, 1 << 20]))
def test_csv_is_encoded_as_the_slow_reference_does(
    rows: list[dict[str, Any]], min_count: int, threads: int, block_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK_BYTES", block_bytes)
        path = write_csv(Path(folder) / "log.csv", rows)
        data = prepare(config_for(path, min_count, True), Path(folder) / "out", threads=threads)
        as_read = [
            dict(
                row,
                bag=row.get("bag") or [],
                number=None if row.get("number") is None else str(row["number"]),
            )
            for row in rows
        ]
        check_against_reference(data, as_read, min_count)


def log_of(*words: str | None, split: str = "train") -> list[dict[str, Any]]:
    return [{"label": 0, "split": split, "word": word} for word in words]


def small_config(path: Path, **changes: Any) -> DataConfig:
    return DataConfig(path=str(path), categorical=("word",), split=Split(column="split"), **changes)


def test_ids_are_ranked_by_train_frequency_and_ties_by_value(tmp_path: Path) -> None:
    rows = [
        *log_of("b", "a", "c", "c", "z"),
        *log_of("z", "z", "z", "z", "new", split="test"),
        *ANCHORS,
    ]
    data = prepare(small_config(write_parquet(tmp_path / "log.parquet", rows)), tmp_path / "out")
    assert data.vocabulary(0).values.to_pylist() == ["c", "a", "b", "z"]
    assert data.counts(0).tolist() == [2, 2, 1, 1, 1]  # the two anchors in train have no word
    assert data.vocabulary(0).lookup(["new", "c", None]).tolist() == [0, 1, 0]


def test_rare_unseen_and_missing_ids_read_row_0_and_are_told_apart_in_the_manifest(tmp_path: Path) -> None:
    rows = [
        *log_of("often", "often", "rare"),
        *log_of("often", "rare", "never", None, split="test"),
        *ANCHORS,
    ]
    data = prepare(small_config(write_csv(tmp_path / "log.csv", rows), min_count=2), tmp_path / "out")
    entry = data.manifest["fields"][0]
    assert rows_read(data, 0, "test") == [1, 0, 0, 0, 0, 0]
    assert (entry["train_ids"], entry["train_singletons"], entry["rows"]) == (2, 1, 2)
    assert entry["unseen"]["test"] == 1
    assert entry["missing"] == {"train": 2, "valid": 2, "test": 3}
    assert entry["row_0"] == {"train": 3, "valid": 2, "test": 5}


def test_min_count_of_a_field_goes_before_that_of_the_data(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", [*log_of("once", "twice", "twice"), *ANCHORS])
    config = DataConfig(
        path=str(path),
        categorical={"word": Categorical(min_count=1)},
        min_count=2,
        split=Split(column="split"),
    )
    assert prepare(config, tmp_path / "out").vocabulary(0).size == 2


def test_numbers_can_be_bucketized_from_text_and_from_parquet(tmp_path: Path) -> None:
    values = [1, 2, 3, 100, 101, None, -5]
    rows = [{"label": 0, "split": "train", "word": value} for value in values] + ANCHORS
    for path in (write_csv(tmp_path / "a.csv", rows), write_parquet(tmp_path / "b.parquet", rows)):
        config = DataConfig(
            path=str(path), categorical={"word": Categorical(bucketize=True)}, split=Split(column="split")
        )
        data = prepare(config, tmp_path / path.stem)
        found = rows_read(data, 0, "train")[:7]
        assert found[3] == found[4] == 1  # 2 + floor(ln(100)^2) = 2 + floor(ln(101)^2) = 23
        assert found[5] == 0
        assert len(set(found)) == 6
        assert data.vocabulary(0).lookup([100.4, 101, 99999]).tolist() == [1, 1, 0]


def test_integer_ids_in_floats_are_read_and_others_refused(tmp_path: Path) -> None:
    rows = [{"label": 0, "split": "train", "word": value} for value in (1.0, 1.0, 2.0)] + ANCHORS
    data = prepare(small_config(write_parquet(tmp_path / "log.parquet", rows)), tmp_path / "out")
    assert data.vocabulary(0).values.to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int8(), [1, 2, 1]),
        (pa.uint64(), [1, 2**64 - 1, 1]),
        (pa.bool_(), [True, False, True]),
        (pa.large_string(), ["x", "y", "x"]),
        (pa.binary(), [b"x", b"y", b"x"]),
        (pa.dictionary(pa.int8(), pa.string()), ["x", "y", "x"]),
        (pa.dictionary(pa.int16(), pa.int64()), [7, -7, 7]),
        (pa.list_(pa.int32()), [[1, 1], [2], [2, 1]]),
        (pa.large_list(pa.string()), [["x", "x"], ["y"], ["y", "x"]]),
        (pa.list_(pa.int64(), 2), [[1, 1], [2, 2], [1, 2]]),
        (pa.list_(pa.dictionary(pa.int8(), pa.string())), [["x", "x"], ["y"], ["y", "x"]]),
        *((view, [word.encode() if "binary" in str(view) else word for word in "xyx"]) for view in VIEWS),
        *((pa.list_(view), [["x", "x"], ["y"], ["y", "x"]]) for view in VIEWS if "string" in str(view)),
    ],
)
def test_ids_of_every_type_of_parquet_are_read(tmp_path: Path, kind: pa.DataType, values: list[Any]) -> None:
    rows = [{"label": 0, "split": "train", "word": value} for value in values] + ANCHORS
    bag = Categorical(bag=isinstance(values[0], list))
    path = write_parquet(tmp_path / "log.parquet", rows, word=kind)
    config = DataConfig(path=str(path), categorical={"word": bag}, split=Split(column="split"))
    data = prepare(config, tmp_path / "out")
    assert data.vocabulary(0).size == 2
    found = rows_read(data, 0, "train")[:3]
    flat = [row for rows in found for row in rows] if bag.bag else found
    wanted = [v for bag in values for v in bag] if bag.bag else values
    assert all((a == b) == (x == y) for a, x in zip(flat, wanted) for b, y in zip(flat, wanted))  # noqa: B905


@pytest.mark.parametrize("kind", [pa.string(), pa.binary(), *VIEWS], ids=str)
def test_bags_are_read_from_text_of_any_type_and_from_columns_without_one(
    tmp_path: Path, kind: pa.DataType
) -> None:
    text = [
        row | {"word": word} for row, word in zip(ANCHORS, ["x|y", "x", "", None, "y|", "y"], strict=True)
    ]
    words = (
        [{**row, "word": row["word"] and row["word"].encode()} for row in text]
        if "binary" in str(kind)
        else text
    )
    write_parquet(tmp_path / "a.parquet", words, word=kind)
    write_parquet(tmp_path / "b.parquet", [row | {"word": None} for row in ANCHORS], word=pa.null())
    config = DataConfig(
        path=str(tmp_path), categorical={"word": Categorical(bag=True)}, split=Split(column="split")
    )
    data = prepare(config, tmp_path / "out")
    assert data.vocabulary(0).values.to_pylist() == ["x", "y"]
    assert [rows_read(data, 0, split) for split in SPLITS] == [
        [[1, 2], [1], [], []],
        [[], [], [], []],
        [[2], [2], [], []],
    ]


def test_a_column_that_train_never_fills_has_row_0_alone(tmp_path: Path) -> None:
    rows = [*log_of("only here", split="test"), *ANCHORS]
    data = prepare(small_config(write_csv(tmp_path / "log.csv", rows)), tmp_path / "out")
    assert (data.fields[0].rows, data.counts(0).tolist()) == (1, [2])
    assert data.vocabulary(0).lookup(["only here"]).tolist() == [0]
    path = write_csv(tmp_path / "empty.csv", [row | {"word": None} for row in ANCHORS])
    data = prepare(small_config(path), tmp_path / "empty")
    assert data.vocabulary(0).lookup(["text"]).tolist() == [0]


def test_strings_whose_keys_collide_are_still_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoembed.data import categorical, keys, vocabulary

    def weak(values: pa.Array, seed: int = 0) -> tuple[np.ndarray, bool]:
        if seed < 2:
            return np.array([len(value) for value in values.to_pylist()], dtype=np.uint64), False
        return keys.string_keys(values, seed)

    monkeypatch.setattr(categorical, "string_keys", weak)
    monkeypatch.setattr(vocabulary, "string_keys", weak)
    words = ["a long word", "a lone word", "a last word", "short", "other"]
    rows = [*log_of(*words, *words), *ANCHORS]
    data = prepare(small_config(write_parquet(tmp_path / "log.parquet", rows)), tmp_path / "out")
    assert data.vocabulary(0).values.to_pylist() == sorted(words)
    assert data.vocabulary(0).lookup(["a lock word", *sorted(words)]).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_same_data_gives_the_same_fingerprint_wherever_it_lies(tmp_path: Path) -> None:
    rows = [*log_of("a", "b", "a"), *ANCHORS]
    prints = set()
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        path = write_parquet(tmp_path / folder / "log.parquet", rows)
        prints.add(prepare(small_config(path), tmp_path / folder / "out").fingerprint)
    assert len(prints) == 1
    path = write_parquet(tmp_path / "log.parquet", [*log_of("a"), *rows])
    assert prepare(small_config(path), tmp_path / "out").fingerprint not in prints


def test_many_files_are_one_log_in_numeric_order(tmp_path: Path) -> None:
    for number, word in ((10, "c"), (2, "b"), (1, "a")):
        write_csv(tmp_path / f"day_{number}.csv", [*log_of(word), *ANCHORS])
    whole = prepare(small_config(tmp_path), tmp_path / "out")
    words = [None, *whole.vocabulary(0).values.to_pylist()]
    assert [words[row] for row in rows_read(whole, 0, "train")[::3]] == ["a", "b", "c"]
    by_glob = prepare(small_config(tmp_path / "day_*.csv"), tmp_path / "glob")
    assert by_glob.fingerprint == whole.fingerprint


def test_progress_rises_to_the_end_of_both_stages(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", [*log_of("a"), *ANCHORS])
    seen: list[PrepareProgress] = []
    prepare(small_config(path), tmp_path / "out", progress=seen.append)
    for stage in ("read", "write"):
        done = [at.done for at in seen if at.stage == stage]
        assert done == sorted(done)
        assert done[-1] == 1.0
    assert seen[-1].rows == 7
