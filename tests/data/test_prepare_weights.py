"""Weights of bags from the raw log to batches, and their errors with file and line."""

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from click_logs import ANCHORS, SPLITS, write_csv, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.config import ConfigError
from autoembed.data.config import Categorical, DataConfig, Split, check
from autoembed.data.prepare import prepare
from autoembed.runtime.encode import RawField, encode_columns
from autoembed.runtime.logs import log_batches

PAIR = st.tuples(st.sampled_from(["p", "q", "r", None]), st.integers(-8, 40).map(lambda n: n / 8))
ROW = st.fixed_dictionaries(
    {"label": st.integers(0, 1), "split": st.sampled_from(SPLITS), "pairs": st.lists(PAIR, max_size=3)}
)


def config_for(path: Path, pooling: str = "sum") -> DataConfig:
    tags = Categorical(bag=True, pooling=pooling, weights="scores")
    return DataConfig(path=str(path), categorical={"tags": tags}, split=Split(column="split"))


def row(tags: Any, scores: Any, **other: Any) -> dict[str, Any]:
    return {"label": 0, "split": "train", "tags": tags, "scores": scores} | other


def joined(values: Any) -> Any:
    return "|".join("" if value is None else str(value) for value in values) or None


@settings(deadline=None, max_examples=10)
@given(st.lists(ROW, max_size=20), st.booleans())
def test_every_id_keeps_its_weight_from_the_log_to_the_batch(rows: list[dict[str, Any]], text: bool) -> None:
    rows = [*rows, *({**anchor, "pairs": [("p", 0.5)]} for anchor in ANCHORS)]
    raw = [
        row([i for i, _ in r["pairs"]], [w for _, w in r["pairs"]], label=r["label"], split=r["split"])
        for r in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        if text:
            # a single missing id reads as an empty bag in text, which has no weights
            as_text = [{**r, "tags": joined(r["tags"]), "scores": joined(r["scores"])} for r in raw]
            as_text = [r if r["tags"] else {**r, "scores": None} for r in as_text]
            path = write_csv(Path(folder) / "log.csv", as_text)
        else:
            types = {"tags": pa.list_(pa.string()), "scores": pa.list_(pa.float64())}
            path = write_parquet(Path(folder) / "log.parquet", raw, **types)
        data = prepare(config_for(path), Path(folder) / "out")
        vocabulary = data.vocabulary(0)
        for split in SPLITS:
            expected = [
                [(int(vocabulary.lookup([i])[0]), w) for i, w in r["pairs"] if i is not None]
                for r in rows
                if r["split"] == split
            ]
            field = RawField("tags", vocabulary, True, "sum", "|", "scores")
            served = {name: [r[name] for r in raw if r["split"] == split] for name in ("tags", "scores")}
            batches = (
                list(data.batches(split, 3)),
                list(log_batches(config_for(path), [field], [], split)),
                [encode_columns(served, [field], [], "label")],
            )
            for found in batches:
                assert [pairs for batch in found for pairs in pairs_of(batch)] == expected


def pairs_of(batch: Any) -> list[list[tuple[int, float]]]:
    bag = batch.bags[0]
    pairs = list(zip(bag.values.tolist(), bag.weights.tolist(), strict=True))
    return [pairs[a:b] for a, b in pairwise(bag.offsets.tolist())]


@pytest.mark.parametrize(
    ("tags", "scores", "pooling", "message"),
    [
        ("a|b", "1", "sum", "log.csv:3: bag 'tags' has another number of ids than 'scores' has weights"),
        ("a", None, "sum", "log.csv:3: bag 'tags' has another number of ids"),
        ("a|b", "1|x", "sum", "log.csv:3: column 'scores' holds a weight that is not a finite number"),
        ("a|b", "inf|1", "sum", "log.csv:3: column 'scores' holds a weight that is not a finite number"),
        ("a|b", "1|", "sum", "log.csv:3: column 'scores' holds a weight that is not a finite number"),
        ("a|b", "1|-1", "mean", "log.csv:3: column 'scores' holds a weight that is not at least 0"),
    ],
)
def test_wrong_weights_are_told_with_file_and_line(
    tmp_path: Path, tags: str, scores: str | None, pooling: str, message: str
) -> None:
    rows = [row("a", "2"), row(tags, scores), *ANCHORS]
    path = write_csv(tmp_path / "log.csv", rows)
    with pytest.raises(ConfigError, match="1 of 8 rows are bad") as error:
        prepare(config_for(path, pooling), tmp_path / "out")
    assert message in str(error.value)


def test_served_weights_are_checked_as_the_logs_are(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", [row("a", "2"), *ANCHORS])
    vocabulary = prepare(config_for(path), tmp_path / "out").vocabulary(0)
    field = RawField("tags", vocabulary, True, "sum", "|", "scores")
    with pytest.raises(ValueError, match="row 1: 'tags' has 2 elements, 'scores' has 1"):
        encode_columns({"tags": [["a"], ["a", "a"]], "scores": [[1.0], [1.0]]}, [field], [], "label")
    with pytest.raises(ValueError, match="row 0: column 'scores' holds a weight that is not a finite"):
        encode_columns({"tags": [["a"]], "scores": [[float("nan")]]}, [field], [], "label")
    with pytest.raises(ValueError, match="missing columns: scores"):
        encode_columns({"tags": [["a"]]}, [field], [], "label")
    with pytest.raises(ValueError, match="expected lists of numbers or text, found int64"):
        encode_columns({"tags": [["a"]], "scores": [1]}, [field], [], "label")


def test_weights_ask_for_a_bag_and_a_column_of_their_own() -> None:
    split = Split(column="split")
    with pytest.raises(ConfigError, match="'a' has weights but is no bag"):
        check(DataConfig(path="x", categorical={"a": Categorical(weights="w")}, split=split))
    with pytest.raises(ConfigError, match="'a' has separator but is no bag; set 'bag: true'"):
        check(DataConfig(path="x", categorical={"a": Categorical(separator=";")}, split=split))
    fields = {"a": Categorical(bag=True, weights="b"), "b": None}
    with pytest.raises(ConfigError, match="'b' weighs 'a' and is the label or a feature"):
        check(DataConfig(path="x", categorical=fields, split=split))


def test_bags_without_weights_are_described_as_before_there_were_any(tmp_path: Path) -> None:
    assert "weights" not in Categorical(bag=True).model_dump(mode="json")
    path = write_csv(tmp_path / "log.csv", [row("a", None), *ANCHORS])
    config = DataConfig(
        path=str(path), categorical={"tags": Categorical(bag=True)}, split=Split(column="split")
    )
    data = prepare(config, tmp_path / "out")
    assert "weights" not in data.manifest["fields"][0]
    assert next(data.batches("train", 9)).bags[0].weights is None
    assert torch.equal(next(data.batches("train", 9)).bags[0].shares(), torch.ones(1))
