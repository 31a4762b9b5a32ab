"""Reading the data YAML: short and long forms, and what every mistake is told."""

from pathlib import Path

import pytest

from autoembed.config import ConfigError
from autoembed.data.chunk import layout_of
from autoembed.data.config import (
    Categorical,
    ColumnSplit,
    DataConfig,
    RandomSplit,
    Split,
    check,
    load_data_config,
)
from autoembed.data.sources import find_files


def written(folder: Path, text: str) -> Path:
    path = folder / "data.yaml"
    path.write_text(text)
    return path


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "path: [logs/a.csv, /abs/b.csv]\ncategorical: [user]\nsplit: {column: split}\n")
    assert load_data_config(path).paths == (str(tmp_path / "logs/a.csv"), "/abs/b.csv")


def test_lists_are_short_for_mappings_with_defaults(tmp_path: Path) -> None:
    config = load_data_config(
        written(
            tmp_path,
            "path: a.csv\ndense: [price]\ncategorical: {user: , tags: {bag: true, pooling: mean}}\n"
            "split: {column: day, train: [1, 2], valid: [3], test: [4]}\n",
        )
    )
    assert config.dense_columns("csv") == {"price": "log"}
    assert config.categorical_columns("csv") == {
        "user": Categorical(),
        "tags": Categorical(bag=True, pooling="mean"),
    }
    assert config.split.chosen == ColumnSplit(column="day", train=(1, 2), valid=(3,), test=(4,))


def test_criteo_needs_no_columns_and_a_bucketized_count_is_no_longer_dense(tmp_path: Path) -> None:
    config = load_data_config(written(tmp_path, "path: day_0.gz\nformat: criteo\nsplit: {random: {}}\n"))
    assert len(config.dense_columns("criteo")) == 13
    assert list(config.categorical_columns("criteo"))[25] == "C26"
    config = load_data_config(
        written(
            tmp_path,
            "path: x\nformat: criteo\ncategorical: {I2: {bucketize: true}, C1: }\nsplit: {random: {}}\n",
        )
    )
    assert "I2" not in config.dense_columns("criteo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("categorical: [a]\nsplit: {random: {}}", "key 'path' is missing"),
        ("path: []\ncategorical: [a]\nsplit: {random: {}}", "name a file, a directory or a glob"),
        ("path: x\ncategorical: [a]", "key 'split' is missing"),
        ("path: x\ncategorical: [a]\nsplit: {}", "exactly one of column, random, last; found none"),
        ("path: x\ncategorical: [a]\nsplit: {column: s, random: {}}", "found column and random"),
        ("path: x\ncategorical: [a]\nsplit: {random: {valid: 0.5, test: 0.5}}", "leave nothing to train on"),
        (
            "path: x\ncategorical: [a]\nsplit: {column: s, train: [1], valid: [1]}",
            "lists the value '1' twice",
        ),
        (
            "path: x\ncategorical: [a]\nsplit: {column: s, train: [true], valid: ['True']}",
            "lists the value 'True' twice",
        ),
        ("path: x\ncatgorical: [a]\nsplit: {random: {}}", "did you mean 'categorical'"),
        ("path: x\ncategorical: [a, a]\nsplit: {random: {}}", "names the column 'a' twice"),
        ("path: x\ncategorical: [a]\ndense: [a]\nsplit: {random: {}}", "both dense and categorical"),
        ("path: x\ncategorical: [label]\nsplit: {random: {}}", "is also a feature"),
        ("path: x\nformat: csv\nsplit: {random: {}}", "key 'categorical' is missing"),
        (
            "path: x\nformat: csv\nheader: false\ncategorical: [a]\nsplit: {random: {}}",
            "must name all columns",
        ),
        (
            "path: x\ncategorical: {a: {bag: true, bucketize: true}}\nsplit: {random: {}}",
            "cannot be a bag and bucketized",
        ),
        ("path: x\ndense: {a: sqrt}\ncategorical: [b]\nsplit: {random: {}}", "'log', 'standard' or 'none'"),
        ("path: x\ncategorical: [a]\nmin_count: 0\nsplit: {random: {}}", "key 'min_count'"),
        ("path: x\ncategorical: [a]\ndense: b\nsplit: {random: {}}", "expected a list or keys and values"),
        ("path: x\ncategorical: [a]\nsplit: random", "key 'split': expected keys and values, found 'random'"),
        (
            "path: x\ncategorical: {a: {bags: true}}\nsplit: {random: {}}",
            "unknown key 'categorical.a.bags'; did you mean 'bag'? valid keys: bag, bucketize, hash_rows,",
        ),
        (
            "path: x\ncategorical: {a: {min_count: two}}\nsplit: {random: {}}",
            "key 'categorical.a.min_count': expected a whole number, found 'two'",
        ),
        (
            "path: x\nheader: false\ncolumns: [label, a, a]\ncategorical: [a]\nsplit: {random: {}}",
            "key 'columns' names the column 'a' twice",
        ),
        *(
            (
                f"path: x\ndelimiter: {given}\ncategorical: [a]\nsplit: {{random: {{}}}}",
                "key 'delimiter': expected one ASCII character, no quote and no line break, found",
            )
            for given in ('"é"', r'"\n"', r'"\r"', "'\"'", r'"\0"')
        ),
        ("path: x\nformat: criteo\nlabel: I1\nsplit: {random: {}}", "the label 'I1' is also a feature"),
        (
            "path: x\nformat: criteo\ndense: [I14]\nsplit: {random: {}}",
            "Criteo's format has no column 'I14': it is tab-separated without a header, label, I1 to I13,",
        ),
        *(
            (
                f"path: x\nformat: criteo\n{given}\nsplit: {{random: {{}}}}",
                "Criteo's format heeds no key '" + given.split(":")[0],
            )
            for given in ('delimiter: ";"', "columns: [label, C1]")
        ),
    ],
)
def test_a_mistake_is_told_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_data_config(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)  # once, not once per type


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label: I1\ncategorical: [C1]", "the label 'I1' is also a feature"),
        ("categorical: [user]", "has no column 'user': it is tab-separated without a header"),
        ("label: click", "has no column 'click'"),
        ("split: {last: {by: time}}", "has no column 'time'"),
        ("split: {column: day}", "has no column 'day'"),
        (r'delimiter: "\t"', "heeds no key 'delimiter'"),
        ("header: false\ncolumns: [label, C1]\ncategorical: [C1]", "heeds no key 'header'"),
    ],
)
def test_a_format_that_follows_from_the_suffix_is_checked_like_one_that_is_given(
    tmp_path: Path, text: str, message: str
) -> None:
    path = written(tmp_path, f"path: a.tsv\n{text}\n" + ("" if "split" in text else "split: {random: {}}\n"))
    (tmp_path / "a.tsv").write_text("")
    config = load_data_config(path)
    with pytest.raises(ConfigError) as error:
        layout_of(config, find_files(config)[1])
    assert message in str(error.value)
    if "has no" in message or "heeds" in message:
        assert "as which .tsv and .txt are read by their suffix" in str(error.value)
        assert "for other text set 'format: csv' and 'delimiter'" in str(error.value)


def test_what_criteo_is_anyway_may_be_said() -> None:
    described = DataConfig(
        path="x", format="criteo", delimiter="\t", header=False, split=Split(random=RandomSplit())
    )
    check(described)
    assert len(layout_of(described, "criteo").categorical) == 26
