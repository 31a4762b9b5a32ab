"""Which files a path means: folders, links, brackets and entries that overlap."""

from pathlib import Path

import pytest
from click_logs import ANCHORS, write_csv

from autoembed.config import ConfigError
from autoembed.data.config import DataConfig, Split, load_data_config
from autoembed.data.prepare import prepare
from autoembed.data.sources import find_files

ROWS = [row | {"word": "a"} for row in ANCHORS]


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("label\n")


def found(root: Path, *entries: str, format: str = "") -> list[str]:
    """The files of a YAML in `root`, by their paths from there."""
    settings = f"path: {list(entries)}\ncategorical: [a]\nsplit: {{random: {{}}}}\n"
    (root / "logs.yaml").write_text(settings + (f"format: {format}\n" if format else ""))
    files, _ = find_files(load_data_config(root / "logs.yaml"))
    return [str(path.relative_to(root)) for path in files]


def test_a_folder_leaves_out_what_is_hidden_or_temporary_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path, "logs/a.csv", "logs/.b.csv", "logs/_c.csv", "logs/day/d.csv")
    put(tmp_path, "logs/.ipynb_checkpoints/a.csv", "logs/_temporary/0/e.csv", "logs/day/_delta_log/f.csv")
    assert found(tmp_path, "logs") == ["logs/a.csv", "logs/day/d.csv"]


def test_a_folder_that_lies_in_a_hidden_one_is_read(tmp_path: Path) -> None:
    put(tmp_path, ".cache/_logs/a.csv")
    assert found(tmp_path, ".cache/_logs") == [".cache/_logs/a.csv"]


def test_links_to_folders_are_followed_and_never_in_circles(tmp_path: Path) -> None:
    put(tmp_path, "logs/day_1/a.csv", "elsewhere/deep/b.csv")
    (tmp_path / "logs/day_2").symlink_to("../elsewhere")
    (tmp_path / "elsewhere/deep/up").symlink_to("../../logs")
    (tmp_path / "logs/day_1/self").symlink_to(".")
    (tmp_path / "logs/gone").symlink_to("nowhere")
    assert found(tmp_path, "logs") == ["logs/day_1/a.csv", "logs/day_2/deep/b.csv"]


def test_a_file_that_several_entries_or_links_name_is_read_once(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "b.csv", "logs/day_1.csv", "logs/day_2.csv", "old.csv")
    (tmp_path / "logs/current.csv").symlink_to("day_2.csv")
    (tmp_path / "logs/day_0.csv").symlink_to("../old.csv")
    assert found(tmp_path, "b.csv", "*.csv", "./a.csv") == ["b.csv", "a.csv", "old.csv"]
    assert found(tmp_path, "logs") == ["logs/day_0.csv", "logs/day_1.csv", "logs/day_2.csv"]
    assert found(tmp_path, "logs/current.csv") == ["logs/current.csv"]


def test_rows_of_overlapping_entries_count_once(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS)
    config = DataConfig(
        path=(str(tmp_path / "*.csv"), str(path)), categorical=("word",), split=Split(column="split")
    )
    assert prepare(config, tmp_path / "out").rows("train") == 2


@pytest.mark.parametrize("entry", ["*.csv", "a.csv", "day[2]", "day[2]/*.csv", "day[2]/b.csv", "c[12].csv"])
def test_folders_and_files_that_are_there_mean_themselves_in_brackets(tmp_path: Path, entry: str) -> None:
    for folder in ("exp[1]", "exp1"):
        put(tmp_path / folder, "a.csv", "day[2]/b.csv", "day2/b.csv", "c1.csv", "c2.csv")
    expected = {"*.csv": ["a.csv", "c1.csv", "c2.csv"], "a.csv": ["a.csv"], "c[12].csv": ["c1.csv", "c2.csv"]}
    assert found(tmp_path / "exp[1]", entry) == expected.get(entry, ["day[2]/b.csv"])
    (tmp_path / "exp[1]" / "a.csv").unlink()
    with pytest.raises(ConfigError, match="no file matches"):
        found(tmp_path / "exp[1]", "a.csv")


def test_prepared_data_inside_the_log_is_no_log(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ROWS)
    config = DataConfig(path=str(tmp_path), format="csv", categorical=("word",), split=Split(column="split"))
    first = prepare(config, tmp_path / "prepared")
    assert prepare(config, tmp_path / "prepared").fingerprint == first.fingerprint
    assert [path.name for path in find_files(config)[0]] == ["a.csv"]


def test_numbers_in_names_count_and_other_digits_are_text(tmp_path: Path) -> None:
    put(tmp_path, "x10.csv", "x9.csv", "x1²2.csv", "x٣.csv")
    assert found(tmp_path, "*.csv") == ["x1²2.csv", "x٣.csv", "x9.csv", "x10.csv"]
