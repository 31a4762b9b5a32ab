"""YAML files: what a key that stands twice is told, and what may repeat."""

from pathlib import Path

import pytest

from autoembed.config import ConfigError, read_yaml


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        ("path: a\nlabel: b\npath: c\n", 3, "path", 1),
        ("categorical:\n  user: {min_count: 5}\n  item:\n  'user': {hash_rows: 3}\n", 4, "user", 2),
        ("a: {b: 1, b: 1}\n", 1, "b", 1),
        ("a:\n- {b: 1}\n- c: 1\n  d: 2\n  c: 3\n", 5, "c", 3),
    ],
)
def test_a_key_that_stands_twice_is_told_with_its_lines(
    tmp_path: Path, text: str, line: int, key: str, first: int
) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(path)
    assert str(error.value) == f"{path}:{line}: key {key!r} stands in line {first} already; keep one"


def test_keys_repeat_between_mappings_and_over_merged_ones(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(
        "one: &base {a: 1, b: 2}\ntwo: &more {<<: *base, a: 3}\nthree: {<<: *more, a: 4}\n1: x\n'1': y\n"
    )
    assert read_yaml(path) == {
        "one": {"a": 1, "b": 2},
        "two": {"a": 3, "b": 2},
        "three": {"a": 4, "b": 2},
        1: "x",
        "1": "y",
    }


def test_numbers_in_base_60_are_text(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "time_limit: 12:30\nratio: 1:16\nshare: -1:30.5\nwhole: -12\npart: .5\nexact: 1_000\nhex: 0x10\n"
    )
    assert read_yaml(path) == {
        "time_limit": "12:30",
        "ratio": "1:16",
        "share": "-1:30.5",
        "whole": -12,
        "part": 0.5,
        "exact": 1000,
        "hex": 16,
    }
