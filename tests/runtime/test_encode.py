from dataclasses import replace
from datetime import time, timedelta
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


@pytest.mark.parametrize("kind", [list, iter, np.array])
def test_unsigned_ids_beyond_int64_are_read_from_lists(kind: Any) -> None:
    hashes = np.array([2**63 + 5, 7, 2**64 - 1], np.uint64)
    field = RawField("u64", Vocabulary("integers", pa.array(hashes.view(np.int64))), False, "sum", "|")
    given = [7, 2**63 + 5, 2**64 - 1, 2**63]
    values = kind(given) if kind in (list, iter) else kind(given, np.uint64)
    assert encode_columns({"u64": values}, [field], [], "click").ids[:, 0].tolist() == [2, 1, 3, 0]
    bag = encode_columns({"u64": [given, None, [7]]}, [replace(field, bag=True)], [], "click").bags[0]
    assert bag.values.tolist() == [2, 1, 3, 0, 2] and bag.offsets.tolist() == [0, 4, 4, 5]
    missing = encode_columns({"u64": [2**63 + 5, None, float("nan")]}, [field], [], "click")
    assert missing.ids[:, 0].tolist() == [1, 0, 0]


def test_numbers_of_another_byte_order_are_read() -> None:
    batch = encode(words=["a", "b"], item=np.array([5, 7], ">i8"), age=np.array([50, 30.5], ">f4"))
    assert batch.ids[:, 1].tolist() == [2, 1]
    torch.testing.assert_close(batch.dense[:, 0], torch.tensor([1.0, -0.95]))


@pytest.mark.parametrize("vocabulary", [WORDS.vocabulary, HashedIds("strings", 5)])
def test_views_of_text_are_read(vocabulary: Any) -> None:
    fields = [replace(WORDS, vocabulary=vocabulary), replace(WORDS, name="word", bag=False)]
    expected = encode_columns({"words": ["a|b", None], "word": ["b", None]}, fields, [], "click")
    for words in (pa.array(["a|b", None], pa.string_view()), pa.array([["a", "b"], None])):
        if pa.types.is_list(words.type):
            words = words.cast(pa.list_(pa.string_view()))
        columns = {"words": words, "word": pa.array(["b", None], pa.string_view())}
        batch = encode_columns(columns, fields, [], "click")
        assert torch.equal(batch.bags[0].values, expected.bags[0].values)
        assert torch.equal(batch.ids, expected.ids)


@pytest.mark.parametrize("nothing", [[], np.zeros(0), np.zeros(0, np.int64), pa.array([], pa.string())])
def test_a_column_of_no_rows_may_have_any_type(nothing: Any) -> None:
    for fields in ([WORDS, ITEM], [replace(WORDS, bag=False), replace(ITEM, bag=True)]):
        columns = {"words": nothing, "item": nothing, "age": nothing, "click": nothing}
        assert len(encode_columns(columns, fields, [AGE], "click")) == 0
    batch = encode(words=[np.zeros(0), np.zeros(0)], item=[5, 7], age=[1, 2])
    assert batch.bags[0].offsets.tolist() == [0, 0, 0]


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
        ({"words": ["a", "b"], "item": [2**63, -1], "age": [1, 1]}, "column 'item' holds a whole number"),
        ({"words": ["a", "b"], "item": [2**63, 1.5], "age": [1, 1]}, "column 'item' mixes types"),
        ({"words": ["a"], "item": np.array([1j]), "age": [1]}, "column 'item' has a type that cannot be"),
        ({"words": ["a"], "item": [1], "age": np.array([1j])}, "column 'age' has a type that cannot be"),
        ({"words": ["a"], "item": [1], "age": [timedelta(1)]}, "column 'age' holds duration"),
        ({"words": ["a"], "item": [1], "age": [time(1)]}, "column 'age' holds time64"),
        (
            {"words": ["a"], "item": [1], "age": pa.array([1], pa.timestamp("ns"))},
            "column 'age': Casting from timestamp",
        ),
        ({"words": ["a"], "item": [1.5], "age": [1]}, "column 'item': Float value 1.50* was truncated"),
        ({"words": ["a"], "item": [1], "age": [1], "click": [2]}, "label 'click' must be 0 or 1"),
    ],
)
def test_columns_that_cannot_be_read_are_named(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(**columns)


def test_columns_come_by_name_and_in_order() -> None:
    model, log = load(exported().artifact), exported().log
    expected = model.predict_raw({name: log[name] for name in log.column_names})
    assert torch.equal(model.predict_raw(log), expected)
    (batch,) = log.combine_chunks().to_batches()
    assert torch.equal(model.predict_raw(batch), expected)
    some = {name: log[name].to_pylist()[:3] for name in log.column_names}
    for unordered in ({3, 1, 2}, {3: 1, 1: 2, 2: 3}):
        with pytest.raises(ValueError, match=r"column 'item' is .* expected a value for every row"):
            model.predict_raw({**some, "item": unordered})
    for nothing in (None, [1, 2]):
        with pytest.raises(ValueError, match="expected columns by name, found"):
            model.predict_raw(nothing)
