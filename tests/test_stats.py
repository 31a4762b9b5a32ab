"""Frequency groups promise to tile the rows, keep ties together and leave row 0 alone."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click_logs import ANCHORS, write_csv
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.prepare import prepare
from autoembed.data.row_order import RowOrder
from autoembed.stats import FieldStats, Stats, frequency_groups, head_share, stats_of

COUNTS = st.builds(
    lambda oov, tail, repeat: np.array([oov, *np.repeat(sorted(tail, reverse=True), repeat)], dtype=np.int64),
    st.integers(0, 1000),
    st.lists(st.integers(1, 30) | st.integers(1, 10**6), max_size=80),
    st.integers(1, 4),
)


@settings(deadline=None, max_examples=200)
@given(COUNTS, st.integers(2, 10), st.sampled_from([0.0, 0.005, 0.1]))
def test_groups_tile_the_rows_keep_ties_together_and_are_not_too_small(
    counts: np.ndarray, growth: int, access_share: float
) -> None:
    boundaries = frequency_groups(counts, growth=growth, access_share=access_share)
    assert boundaries[0] == 0
    assert boundaries[-1] == len(counts)
    assert list(boundaries) == sorted(set(boundaries))
    if len(counts) > 1:
        assert boundaries[1] == 1, "row 0 is alone"
    for boundary in boundaries[2:-1]:
        assert counts[boundary - 1] > counts[boundary], "ties are never split"
    for start, stop in pairwise(boundaries[1:-1]):
        assert counts[start:stop].sum() >= access_share * counts.sum(), "all but the tail are large enough"


@given(COUNTS)
def test_without_ties_and_least_shares_boundaries_stand_at_geometric_ranks(counts: np.ndarray) -> None:
    strict = np.arange(len(counts), 0, -1)
    expected = [0, 1] if len(strict) > 1 else [0]
    rank = 4
    while rank < len(strict) - 1:
        expected.append(1 + rank)
        rank *= 4
    assert frequency_groups(strict, access_share=0.0) == (*expected, len(strict))


def test_equal_counts_are_one_group_and_an_empty_field_has_row_0_only() -> None:
    assert frequency_groups(np.array([3, *[5] * 100])) == (0, 1, 101)
    assert frequency_groups(np.array([3])) == (0, 1)
    assert frequency_groups(np.array([0, 1])) == (0, 1, 2)


def test_small_groups_join_the_next_and_the_tail_stands() -> None:
    counts = np.array([0, *[1000] * 4, *[2] * 12, *[1] * 30])
    assert frequency_groups(counts, access_share=0.01) == (0, 1, 5, 47)
    assert frequency_groups(counts, access_share=0.005) == (0, 1, 5, 17, 47)


def test_the_head_share_counts_at_least_one_id_and_leaves_row_0_to_the_rest() -> None:
    counts = np.array([10, 50, 20, 10, 10])
    assert head_share(counts, 0.01) == 0.5
    assert head_share(counts, 0.5) == pytest.approx(0.7)
    assert head_share(counts, 1.0) == pytest.approx(0.9)
    assert head_share(np.array([0]), 0.01) == 0.0


def test_statistics_are_those_of_the_train_split(tmp_path: Path) -> None:
    rows = [
        {"label": 0, "split": split, "word": word, "tags": tags}
        for split, word, tags in (
            ("train", "a", ["x", "y", "x"]),
            ("train", "a", []),
            ("train", "b", ["y"]),
            ("test", "b", ["y", "z"]),
        )
    ]
    path = write_csv(tmp_path / "log.csv", [*rows, *ANCHORS])
    config = DataConfig(
        path=str(path), categorical={"word": None, "tags": Categorical(bag=True)}, split=Split(column="split")
    )
    stats = stats_of(prepare(config, tmp_path / "out"))
    assert [field.name for field in stats.fields] == ["word", "tags"]
    assert [field.counts.tolist() for field in stats.fields] == [[2, 2, 1], [0, 2, 2]]
    assert [field.bag for field in stats.fields] == [False, True]
    assert (stats.rows, stats.first_rows) == (6, (0, 3))


def test_a_global_row_is_the_first_row_of_the_field_plus_the_row() -> None:
    stats = Stats(tuple(FieldStats(str(size), np.zeros(size, np.int64)) for size in (3, 1, 5)))
    assert (stats.rows, stats.first_rows) == (9, (0, 3, 4))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(COUNTS, st.booleans(), st.booleans()), min_size=1, max_size=4), st.integers(0, 99))
def test_reordered_statistics_are_those_of_rows_that_stand_elsewhere(
    fields: list[tuple[np.ndarray, bool, bool]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    stats = Stats(tuple(FieldStats(str(n), *field) for n, field in enumerate(fields)))
    order = RowOrder(
        tuple(np.append(0, 1 + random.permutation(field.rows - 1)).astype(np.int32) for field in stats.fields)
    )
    after = stats.reordered(order)
    for field, before, rows in zip(after.fields, stats.fields, order.rows, strict=True):
        assert field.counts.tolist() == [before.counts[row] for row in rows]
        assert (field.name, field.bag, field.ranked) == (before.name, before.bag, before.ranked)
    assert (after.rows, after.first_rows) == (stats.rows, stats.first_rows)
    assert [field.counts[0] for field in after.fields] == [field.counts[0] for field in stats.fields]


def test_statistics_of_reordered_data_are_reordered_statistics(tmp_path: Path) -> None:
    words = ["a", "a", "a", "b", "b", "c"]
    rows = [{"label": 0, "split": "train", "word": word, "tags": [word, "x"]} for word in words]
    path = write_csv(tmp_path / "log.csv", [*rows, *ANCHORS])
    config = DataConfig(
        path=str(path), categorical={"word": None, "tags": Categorical(bag=True)}, split=Split(column="split")
    )
    data = prepare(config, tmp_path / "out")
    order = RowOrder((np.array([0, 3, 1, 2], np.int32), np.array([0, 2, 4, 1, 3], np.int32)))
    found, expected = stats_of(data.reordered(order)), stats_of(data).reordered(order)
    assert [field.counts.tolist() for field in found.fields] == [[2, 1, 3, 2], [0, 3, 1, 6, 2]]
    for field, same in zip(found.fields, expected.fields, strict=True):
        assert np.array_equal(field.counts, same.counts)
        assert (field.name, field.bag, field.ranked) == (same.name, same.bag, same.ranked)
