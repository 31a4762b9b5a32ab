from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from click_logs import ANCHORS, write_parquet
from exported_model import exported

from autoembed.data.config import DataConfig, Split
from autoembed.data.hashed_ids import HashedIds
from autoembed.data.prepare import prepare
from autoembed.data.vocabulary import Vocabulary
from autoembed.runtime import load
from autoembed.runtime.encode import RawDense, RawField, encode_columns

WORDS = RawField("words", Vocabulary("strings", pa.array(["a", "b"], pa.large_string())), True, "sum", "|")
ITEM = RawField("item", Vocabulary("integers", pa.array([7, 5])), False, "sum", "|")
AGE = RawDense("age", "standard", 40.0, 10.0)


def encode(**columns: Any) -> Any:
    return encode_columns(columns, [WORDS, ITEM], [AGE], "click")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_raw_columns_become_the_batch_that_preparing_made(split: str) -> None:
    log = exported().log.filter(pc.equal(exported().log["part"], split))
    model, data = load(exported().artifact), exported().data
    encoded = model.encode({name: log[name] for name in log.column_names})
    (prepared,) = data.batches(split, len(log))
    assert torch.equal(encoded.labels, prepared.labels)
    assert torch.equal(encoded.dense, prepared.dense)
    kept = torch.tensor(model.plan.kept_rows)
    # the exported vocabulary knows only ids that kept a row
    assert torch.equal(encoded.ids, torch.where(prepared.ids < kept, prepared.ids, 0))
    assert encoded.bags.keys() == prepared.bags.keys() == {2, 3}
    for field, bag in prepared.bags.items():
        assert torch.equal(encoded.bags[field].offsets, bag.offsets)
        expected = torch.where(bag.values < kept[field], bag.values, 0)
        assert torch.equal(encoded.bags[field].values, expected)
        assert encoded.bags[field].pooling == bag.pooling


def test_lists_arrays_and_arrow_columns_encode_alike() -> None:
    by_list = encode(words=["a|b", "", None], item=[5, None, 9], age=[50, 30.5, None])
    by_array = encode(
        words=[["a", "b"], [], None],
        item=pa.array([5, None, 9], pa.int32()),
        age=np.array([50, 30.5, np.nan]),
    )
    for batch in (by_list, by_array):
        assert batch.ids[:, 1].tolist() == [2, 0, 0]
        assert batch.bags[0].values.tolist() == [1, 2] and batch.bags[0].offsets.tolist() == [0, 2, 2, 2]
        torch.testing.assert_close(batch.dense[:, 0], torch.tensor([1.0, -0.95, 0.0]))
        assert batch.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", [list, np.array, pa.array])
@pytest.mark.parametrize("vocabulary", [ITEM.vocabulary, HashedIds("integers", 5)])
def test_nan_is_missing_as_in_training(kind: Any, vocabulary: Any, tmp_path: Path) -> None:
    nan = float("nan")
    items = replace(ITEM, name="items", vocabulary=vocabulary, bag=True)
    fields = [replace(ITEM, vocabulary=vocabulary), items]
    elements = list if kind is pa.array else kind
    columns = {"item": kind([5.0, nan]), "items": [elements([nan, 7.0]), elements([nan])]}
    batch = encode_columns(columns, fields, [], "click")
    five, seven = vocabulary.lookup([5, 7])
    assert batch.ids[:, 0].tolist() == [five, 0]
    assert batch.bags[1].values.tolist() == [seven] and batch.bags[1].offsets.tolist() == [0, 1, 1]
    arrow = pa.array([[nan, 7.0], [nan]])
    batch = encode_columns({"item": columns["item"], "items": arrow}, fields, [], "click")
    assert batch.bags[1].values.tolist() == [seven] and batch.bags[1].offsets.tolist() == [0, 1, 1]
    rows = [row | {"item": value} for row, value in zip(ANCHORS * 5, [5.0, nan, 7.0] * 10, strict=True)]
    config = DataConfig(
        path=str(write_parquet(tmp_path / "log.parquet", rows)),
        categorical=("item",),
        split=Split(column="split"),
    )
    (field,) = prepare(config, tmp_path / "out").manifest["fields"]
    assert sum(field["missing"].values()) == 10


def test_missing_text_may_be_nan() -> None:
    batch = encode(words=["a", float("nan")], item=[7, 7], age=[40, 40])
    assert batch.bags[0].offsets.tolist() == [0, 1, 1]


def test_unseen_ids_in_a_bag_read_row_0_and_missing_ones_are_left_out() -> None:
    batch = encode(words=[["a", None, "zebra"]], item=[7], age=[40])
    assert batch.bags[0].values.tolist() == [1, 0]


def test_no_rows_and_columns_of_nothing_encode() -> None:
    assert len(encode(words=[], item=[], age=[])) == 0
    batch = encode(words=[None, None], item=[None, None], age=[None, None])
    assert batch.bags[0].offsets.tolist() == [0, 0, 0] and batch.ids.tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"words": ["a"], "age": [1]}, "missing columns: item; given are words, age"),
        ({"words": ["a"], "item": [1, 2], "age": [1]}, "column 'item' has 2 values, 'words' has 1"),
        ({"words": ["a"], "item": ["x"], "age": [1]}, "column 'item': this vocabulary holds numbers"),
        ({"words": [3], "item": [1], "age": [1]}, "column 'words' is a bag, expected lists of ids or text"),
        ({"words": [[3]], "item": [1], "age": [1]}, "column 'words': this vocabulary holds text"),
        ({"words": ["a"], "item": [1], "age": ["old"]}, "column 'age' holds string, expected numbers"),
        (
            {"words": ["a"], "item": [1], "age": [float("inf")]},
            "column 'age' holds a number that is infinite",
        ),
        ({"words": ["a"], "item": [1, "x"], "age": [1]}, "column 'item' mixes types"),
        ({"words": ["a"], "item": 1, "age": [1]}, "column 'item' is 1, expected a value for every row"),
        ({"words": "a", "item": [1], "age": [1]}, "column 'words' is 'a', expected a value for every row"),
        ({"words": ["a"], "item": [2**70], "age": [1]}, "column 'item' holds a whole number of more than 64"),
        ({"words": ["\ud800"], "item": [1], "age": [1]}, "column 'words' holds text that is no Unicode"),
        ({"words": [["\ud800"]], "item": [1], "age": [1]}, "column 'words' holds text that is no Unicode"),
        ({"words": ["a"], "item": [1.5], "age": [1]}, "column 'item': Float value 1.50* was truncated"),
        ({"words": ["a"], "item": [1], "age": [1], "click": [2]}, "label 'click' must be 0 or 1"),
    ],
)
def test_columns_that_cannot_be_read_are_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(**columns)
