"""Rows in another order: batches, counts, ids and tables say the same of the same examples."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click_logs import ANCHORS, SPLITS, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from autoembed.data.batch import Batch
from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.prepare import prepare
from autoembed.data.prepared import MEMORY_LIMIT_BYTES, PreparedData, open_prepared
from autoembed.data.row_order import RowOrder, RowPlaces
from autoembed.data.vocabulary import Vocabulary
from autoembed.lookup import look_up

WORD, NUMBER, TAGS, SCORED, NONE, STAY, HASHED = range(7)
pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS = st.integers(0, 40)
SHUFFLES = st.none() | st.integers(0, 99)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Fields of text, numbers, bags with and without weights, row 0 alone, buckets, and one without a
    vocabulary; empty bags and missing values among them."""
    folder, random = tmp_path_factory.mktemp("ordered"), np.random.default_rng(4)

    def ids(most: int) -> int:
        return int(most ** random.random())

    rows = []
    for number in range(240):
        held = int(random.integers(0, 4))
        rows.append(
            {
                "label": int(random.integers(0, 2)),
                "split": SPLITS[number % 3],
                "x": float(number),
                "word": None if number % 19 == 0 else f"word {ids(25)}",
                "number": None if number % 17 == 0 else ids(40) - 20,
                "tags": [f"t{ids(12)}" for _ in range(number % 4)],
                "scored": [ids(9) for _ in range(held)],
                "scores": random.random(held).tolist(),
                "none": number,
                "stay": random.lognormal(3, 2),
                "hashed": ids(60),
            }
        )
    config = DataConfig(
        path=str(write_parquet(folder / "log.parquet", [*rows, *({**a, "x": 0.0} for a in ANCHORS)])),
        dense={"x": "none"},
        categorical={
            "word": None,
            "number": None,
            "tags": Categorical(bag=True, pooling="mean"),
            "scored": Categorical(bag=True, weights="scores"),
            "none": Categorical(min_count=2),
            "stay": Categorical(bucketize=True),
            "hashed": Categorical(hash_rows=7),
        },
        split=Split(column="split"),
    )
    return prepare(config, folder / "out")


def order_of(*rows: Any) -> RowOrder:
    return RowOrder(tuple(np.array(part, dtype=np.int32) for part in rows))


def some_order(data: PreparedData, seed: int) -> RowOrder:
    """Row 0 first, and all rows of the field without a vocabulary where they are; all where `seed` is 0."""
    random = np.random.default_rng(seed)
    stays = [seed == 0 or field.hash_rows is not None for field in data.fields]
    return order_of(
        *(
            np.arange(field.rows) if still else np.append(0, 1 + random.permutation(field.rows - 1))
            for field, still in zip(data.fields, stays, strict=True)
        )
    )


def reversed_order(data: PreparedData) -> RowOrder:
    """Every row that may move does, but for one in the middle of an odd field."""
    return order_of(
        *(
            range(field.rows) if field.hash_rows is not None else [0, *range(field.rows - 1, 0, -1)]
            for field in data.fields
        )
    )


def vocabulary(data: PreparedData, field: int) -> Vocabulary:
    ids = data.vocabulary(field)
    assert isinstance(ids, Vocabulary)
    return ids


def moved(order: RowOrder, field: int, rows: torch.Tensor) -> list[int]:
    """Where rows went, one by one."""
    places = {int(row): place for place, row in enumerate(order.rows[field])}
    return [places[row] for row in rows.tolist()]


def check_moved(order: RowOrder, batches: Iterator[Batch], expected: Iterator[Batch]) -> None:
    """The same examples, whose ids are where the order has their rows."""
    for batch, before in zip(batches, expected, strict=True):
        assert torch.equal(batch.labels, before.labels) and torch.equal(batch.dense, before.dense)
        assert batch.ids.dtype == torch.int64 and batch.ids.shape == before.ids.shape
        for field in range(batch.ids.shape[1]):
            assert batch.ids[:, field].tolist() == moved(order, field, before.ids[:, field])
        assert batch.bags.keys() == before.bags.keys() == {TAGS, SCORED}
        for field, bag in batch.bags.items():
            assert bag.values.dtype == torch.int64
            assert bag.values.tolist() == moved(order, field, before.bags[field].values)
            assert torch.equal(bag.offsets, before.bags[field].offsets)
            assert bag.pooling == before.bags[field].pooling
        assert batch.bags[TAGS].weights is None
        assert torch.equal(batch.bags[SCORED].weights, before.bags[SCORED].weights)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(SEEDS, st.sampled_from(SPLITS), st.sampled_from([1, 7, 100]), SHUFFLES, st.booleans())
def test_batches_of_the_same_examples_read_rows_where_they_went(
    data: PreparedData, seed: int, split: str, size: int, shuffle: int | None, mapped: bool
) -> None:
    before = open_prepared(data.path, memory_limit_bytes=0) if mapped else data
    order = some_order(data, seed)
    batches, expected = (
        each.batches(split, size, shuffle_seed=shuffle) for each in (before.reordered(order), before)
    )
    check_moved(order, batches, expected)


def test_the_data_that_was_reordered_stays_as_it_was(data: PreparedData) -> None:
    """Arrays of a split are loaded once for both."""
    order = reversed_order(data)
    fresh = open_prepared(data.path)
    after = fresh.reordered(order)
    check_moved(order, after.batches("train", 30), data.batches("train", 30))
    stays = order_of(*(range(field.rows) for field in data.fields))
    check_moved(stays, fresh.batches("train", 30), data.batches("train", 30))
    check_moved(order, after.batches("train", 30), data.batches("train", 30))
    assert fresh.counts(WORD).tolist() == data.counts(WORD).tolist()


@settings(deadline=None, max_examples=15)
@given(SEEDS, SHUFFLES)
def test_reordered_batches_look_up_in_a_reordered_table_what_they_looked_up_before(
    data: PreparedData, seed: int, shuffle: int | None
) -> None:
    order = some_order(data, seed)
    sizes = [field.rows for field in data.fields]
    first = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    table = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(1))
    pairs = zip(
        data.reordered(order).batches("train", 31, shuffle_seed=shuffle),
        data.batches("train", 31, shuffle_seed=shuffle),
        strict=True,
    )
    for batch, before in pairs:
        lookup, earlier = look_up(batch, first), look_up(before, first)
        found = lookup.pool(order.of_table(table)[lookup.rows])
        assert torch.equal(found, earlier.pool(table[earlier.rows]))
    assert torch.equal(order.of_table(table[:, 0]), order.of_table(table)[:, 0])


@settings(deadline=None, max_examples=15)
@given(SEEDS)
def test_counts_and_ids_stand_where_their_rows_do(data: PreparedData, seed: int) -> None:
    order = some_order(data, seed)
    after = data.reordered(order)
    (train,) = after.batches("train", 1000)
    for field, about in enumerate(after.fields):
        counts = [int(data.counts(field)[row]) for row in order.rows[field]]
        assert after.counts(field).tolist() == counts
        values = train.bags[field].values if field in train.bags else train.ids[:, field]
        assert np.bincount(values, minlength=about.rows).tolist() == counts, "as batches look them up"
    for field in (WORD, NUMBER, TAGS, SCORED, STAY):
        before, ids = vocabulary(data, field), vocabulary(after, field)
        known = before.values.to_pylist()
        assert ids.values.to_pylist() == [known[row - 1] for row in order.rows[field][1:]]
        asked = np.exp(np.arange(-1, 12, 0.1)) if field == STAY else [*known, known[0] * 2, None]
        assert ids.lookup(asked).tolist() == moved(order, field, torch.from_numpy(before.lookup(asked)))
        assert ids.nbytes == before.nbytes
    assert vocabulary(after, NONE).size == 0
    assert after.vocabulary(HASHED) == data.vocabulary(HASHED)


@settings(deadline=None, max_examples=15)
@given(SEEDS, st.booleans(), st.sampled_from([0, MEMORY_LIMIT_BYTES]), SHUFFLES)
def test_relabelled_data_keeps_its_order_and_reordered_data_its_labels(
    data: PreparedData, seed: int, loaded: bool, limit: int, shuffle: int | None
) -> None:
    before, order = open_prepared(data.path, memory_limit_bytes=limit), some_order(data, seed)
    if loaded:
        next(before.batches("train", 1))
    labels = np.random.default_rng(2).random(data.rows("train")).astype(np.float32)
    expected = open_prepared(data.path, memory_limit_bytes=limit).relabelled(labels)
    for after in (before.reordered(order).relabelled(labels), before.relabelled(labels).reordered(order)):
        assert after.order is order and after.fingerprint == before.reordered(order).fingerprint
        for split in SPLITS:
            batches, others = (each.batches(split, 50, shuffle_seed=shuffle) for each in (after, expected))
            check_moved(order, batches, others)
        assert np.array_equal(next(after.batches("train", 1000)).labels, labels)
        with pytest.raises(ValueError, match="the data was reordered before"):
            after.reordered(order)


@settings(deadline=None, max_examples=20)
@given(SEEDS, st.sampled_from([WORD, NUMBER, TAGS, SCORED, STAY]), st.integers(1, 5))
def test_an_order_has_one_fingerprint_and_other_orders_others(
    data: PreparedData, seed: int, field: int, place: int
) -> None:
    order = some_order(data, seed)
    other = [rows.copy() for rows in order.rows]
    other[field][[place, place + 1]] = other[field][[place + 1, place]]
    after = data.reordered(order)
    again = open_prepared(data.path, memory_limit_bytes=0).reordered(order_of(*order.rows))
    assert again.fingerprint == after.fingerprint
    assert len({after.fingerprint, data.reordered(order_of(*other)).fingerprint, data.fingerprint}) == 3
    assert after.prepared_fingerprint == data.prepared_fingerprint == data.fingerprint


@given(st.lists(st.lists(st.integers(0, 4), max_size=20), min_size=1, max_size=4))
def test_where_rows_went_may_be_one_place_for_several(looked_up: list[list[int]]) -> None:
    places = RowPlaces(
        (np.array([0, 3, 1, 0, 3], np.int32), np.array([0], np.int32), np.array([0, 0, 2, 1, 0], np.int32))
    )
    ids = torch.zeros(20, 3, dtype=torch.int64)
    for column, values in zip((0, 2), looked_up, strict=False):
        ids[: len(values), column] = torch.tensor(values, dtype=torch.int64)
    found = places.batch(Batch(torch.zeros(20), torch.zeros(20, 0), ids, {})).ids
    expected = [[int(places.places[field][row]) for field, row in enumerate(rows)] for rows in ids.tolist()]
    assert found.tolist() == expected


def test_a_saved_order_is_read_back(data: PreparedData, tmp_path: Path) -> None:
    sizes = [field.rows for field in data.fields]
    order, path = reversed_order(data), tmp_path / "order.safetensors"
    path.write_bytes(b"what was there")
    order.save(path)
    found = RowOrder.load(path, sizes)
    assert [rows.tolist() for rows in found.rows] == [rows.tolist() for rows in order.rows]
    assert all(rows.dtype == np.int32 for rows in found.rows)
    assert data.reordered(found).fingerprint == data.reordered(order).fingerprint
    many = order_of(*([0, *range(number, 0, -1)] for number in range(30)))  # 10 behind 9
    many.save(path)
    assert [len(rows) for rows in RowOrder.load(path, range(1, 31)).rows] == list(range(1, 31))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([[0, 2, 1], [1, 0, 2]], id="row 0 moved"),
        pytest.param([[0, 2, 1], [0, 2, 2]], id="a row twice"),
        pytest.param([[0, 2, 1], [0, 3, 1]], id="a row that is none"),
        pytest.param([[0, 2, 1], [0, -1, 1]], id="a row below 0"),
        pytest.param([[0, 2, 1], []], id="no row"),
    ],
)
def test_what_is_no_order_is_refused(rows: list[list[int]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="field 1: no order of all its rows that begins with row 0"):
        order_of(*rows)
    path = tmp_path / "order.safetensors"
    save_file({str(n): np.array(part, np.int32) for n, part in enumerate(rows)}, path)
    with pytest.raises(ValueError, match="field 1: no order of all its rows"):
        RowOrder.load(path, [len(part) for part in rows])


def test_a_file_of_other_fields_or_other_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "order.safetensors"
    order_of([0, 2, 1], [0, 1]).save(path)
    for sizes in ([3], [2, 3], [3, 3], [3, 2, 1], []):
        with pytest.raises(ValueError, match=f"{path}: holds no order of fields of"):
            RowOrder.load(path, sizes)
    for dtype in (np.int64, np.float32, np.uint32):
        save_file({"0": np.array([0, 2, 1], np.int32), "1": np.array([0, 1], dtype)}, path)
        with pytest.raises(ValueError, match=f"{path}: holds no order of fields of 3, 2 rows"):
            RowOrder.load(path, [3, 2])


def test_orders_of_other_rows_and_of_hashed_ones_are_refused(data: PreparedData) -> None:
    rows = list(reversed_order(data).rows)
    for other in (rows[:-1], [*rows, rows[0]], [rows[NUMBER], rows[WORD], *rows[2:]], [*rows[:-1], [0, 1]]):
        with pytest.raises(ValueError, match="the order is one of other rows"):
            data.reordered(order_of(*other))
    with pytest.raises(ValueError, match="field 'hashed' has no vocabulary: its rows cannot be moved"):
        data.reordered(order_of(*rows[:-1], [0, 2, 1, *range(3, 8)]))
    with pytest.raises(ValueError, match="the data was reordered before"):
        data.reordered(order_of(*rows)).reordered(order_of(*rows))


def test_many_fields_come_back_in_their_places(tmp_path: Path) -> None:
    order = order_of(*([0, *range(n % 12, 0, -1)] for n in range(1002)))
    order.save(tmp_path / "order")
    assert RowOrder.load(tmp_path / "order", [len(rows) for rows in order.rows]).is_same(order)
    assert not order.is_same(order_of(*([0, *range(1, n % 12 + 1)] for n in range(1002))))
