"""The table and the picture of prepared data say what the data holds."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from click_logs import ANCHORS, write_parquet
from rich.console import Console

from autoembed.data.config import Categorical, DataConfig, Split
from autoembed.data.hashed_ids import HashedIds
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData
from autoembed.report.front_plot import save
from autoembed.report.stats import plot_long_tail, print_stats, stats_rows
from autoembed.report.stats_plot import coverage, draw_long_tail
from autoembed.stats import FieldStats, stats_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    folder = tmp_path_factory.mktemp("stats")
    words = ["a"] * 5 + ["b"] * 3 + ["c", "d"]
    rows = [{"label": 0, "split": "train", "word": word, "tags": [word, "t"]} for word in words]
    rows += [
        {"label": 1, "split": "test", "word": word, "tags": []} for word in ["a", "c", "new", None, "b", "a"]
    ]
    config = DataConfig(
        path=str(write_parquet(folder / "log.parquet", [*rows, *ANCHORS])),
        categorical={"word": Categorical(min_count=2), "tags": Categorical(bag=True)},
        split=Split(column="split"),
    )
    return prepare(config, folder / "out")


def test_rows_count_look_ups_and_ids_by_hand(data: PreparedData) -> None:
    word, tags = stats_rows(data)
    assert (word.name, word.bag, word.rows, word.train_lookups, word.train_ids) == ("word", False, 3, 12, 4)
    assert (word.singletons, word.singleton_share) == (2, 0.5)
    assert word.head_share == 5 / 12
    assert (word.unseen_valid, word.unseen_test) == (0, 1 / 8)
    # c is rare, new is unseen; one value and those of the two anchors are missing
    assert word.row_0_test == 5 / 8
    assert (tags.bag, tags.rows, tags.train_lookups, tags.head_share) == (True, 6, 20, 0.5)
    assert (tags.unseen_test, tags.row_0_test) == (0.0, 0.0)


def test_the_groups_of_a_field_tile_its_rows_and_share_all_look_ups(data: PreparedData) -> None:
    for row in stats_rows(data):
        assert [group.start for group in row.groups] == [0, *(group.stop for group in row.groups[:-1])]
        assert row.groups[-1].stop == row.rows
        assert sum(group.share for group in row.groups) == pytest.approx(1)


def printed(data: PreparedData, width: int) -> list[str]:
    """The table's lines, none wider than the terminal."""
    console = Console(width=width, file=StringIO())
    print_stats(stats_rows(data), console)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    return lines


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_fits_the_terminal_and_has_a_line_per_field(data: PreparedData, width: int) -> None:
    lines = printed(data, width)
    (line,) = [line for line in lines if line.startswith("word")]
    assert line.split() == ["word", "3", "41.7%", "50.0%", "0.00%", "12.50%", "62.50%", "2"]
    assert any(line.startswith("tags (bag)") for line in lines)


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_gets_fewer_columns_and_whole_names(data: PreparedData, width: int) -> None:
    lines = printed(data, width)
    assert [sum(line.startswith(name) for line in lines) for name in ("word ", "tags (bag)")] == [1, 1]
    (line,) = [line for line in lines if line.startswith("word")]
    assert line.split()[:3] == ["word", "3", "41.7%"]


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_the_picture_is_written_by_its_suffix(
    data: PreparedData, tmp_path: Path, suffix: str, magic: bytes
) -> None:
    plot_long_tail(data, tmp_path / f"tail{suffix}")
    assert (tmp_path / f"tail{suffix}").read_bytes().startswith(magic)
    with pytest.raises(ValueError, match="must end in"):
        plot_long_tail(data, tmp_path / "tail.pdf")


def test_the_same_data_gives_the_same_svg(data: PreparedData, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot_long_tail(data, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_coverage_runs_from_the_first_id_to_all_without_row_0() -> None:
    numbers, lookups = coverage(np.array([100, 7, 2, 1]))
    assert (numbers.tolist(), lookups.tolist()) == ([1, 2, 3], [7, 9, 10])
    numbers, lookups = coverage(np.arange(10**5, 0, -1))
    assert len(numbers) <= 400
    assert (numbers[0], numbers[-1]) == (1, 10**5 - 1)


def test_many_fields_share_one_grey_entry_and_empty_fields_are_left_out() -> None:
    fields = [FieldStats(f"f{i}", np.array([0, *range(i, 0, -1)])) for i in range(12)]
    figure = draw_long_tail(fields)
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[0] == "f11 (11 ids)"
    assert labels[-1] == "3 smaller fields"
    assert len(labels) == 9


def test_every_name_of_a_field_is_in_the_legend_as_written(tmp_path: Path) -> None:
    figure = draw_long_tail([FieldStats(name, np.array([0, 2, 1])) for name in ("_user", "$^$", "$a$")])
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["_user (2 ids)", "$^$ (2 ids)", "$a$ (2 ids)"]
    save(figure, tmp_path / "tail.svg")
    assert all(f"<!-- {label} -->" in (tmp_path / "tail.svg").read_text() for label in labels)


def test_a_field_of_missing_values_alone_is_told_and_drawn(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    rows = [row | {"gone": None} for row in ANCHORS]
    config = DataConfig(
        path=str(write_parquet(tmp_path / "log.parquet", rows)),
        categorical=("gone",),
        split=Split(column="split"),
    )
    data = prepare(config, tmp_path / "out")
    console = Console(width=200, file=StringIO())
    print_stats(stats_rows(data), console)
    assert "1 field, 1 row. top 1 %" in console.file.getvalue()  # type: ignore[attr-defined]
    plot_long_tail(data, tmp_path / "tail.png")
    assert not recwarn.list
    figure = draw_long_tail(stats_of(data).fields)
    assert [text.get_text() for text in figure.axes[0].texts] == ["no field has ids in train"]
    assert not figure.legends


def test_a_field_without_a_vocabulary_tells_how_many_ids_share_rows(tmp_path: Path) -> None:
    rows = [{"label": i % 2, "split": "train", "user": i % 90, "few": i % 9} for i in range(200)]
    rows += [{"label": 0, "split": "test", "user": 1, "few": 1}]
    config = DataConfig(
        path=str(write_parquet(tmp_path / "log.parquet", [*rows, *ANCHORS])),
        categorical={"user": Categorical(hash_rows=100), "few": Categorical(hash_rows=2)},
        split=Split(column="split"),
    )
    data = prepare(config, tmp_path / "out")
    user, few = stats_rows(data)
    read = np.unique(HashedIds("integers", 100).lookup(list(range(90))), return_counts=True)[1]
    assert user.used_rows == len(read) and user.rows == 101
    assert user.train_ids == pytest.approx(90, abs=15)
    assert user.sharing == pytest.approx(read[read > 1].sum() / 90, abs=0.15)
    # as by counting all ids: the most frequent row of used ones, not of the first percent of all rows
    assert user.head_share == data.counts(0)[1:].max() / 202
    assert sum(group.share for group in user.groups) == pytest.approx(1)
    assert user.groups[-1].stop == 1 + user.used_rows
    assert user.singleton_share == (data.counts(0)[1:] == 1).sum() / len(read)
    assert few.used_rows == few.hash_rows == 2
    console = Console(width=200, file=StringIO())
    print_stats([user, few], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"user: about {user.train_ids} ids of train hashed to 100 rows, {len(read)} of them used;" in text
    assert f"few: at least {few.train_ids} ids of train hashed to 2 rows" in text
    labels = [line.get_label() for line in draw_long_tail(stats_of(data).fields).axes[0].lines]
    assert labels == [f"user ({len(read)} used rows)", "few (2 used rows)"]
