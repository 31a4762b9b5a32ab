"""Text logs: compression, dialects, and the line of every bad row, however the file is cut into blocks."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click_logs import ANCHORS, write_csv

from autoembed.config import ConfigError
from autoembed.data import collect, delimited
from autoembed.data.chunk import Chunk, layout_of
from autoembed.data.config import Categorical, DataConfig, LastSplit, RandomSplit, Split
from autoembed.data.delimited import delimited_jobs, dialect_of
from autoembed.data.prepare import prepare

HEADER = "label,x,word,split"
CONFIG = DataConfig(path="", dense=("x",), categorical=("word",), split=Split(column="split"))
BLOCKS = (1, 7, 64, 1 << 20)


def read(path: Path, block_bytes: int, config: DataConfig = CONFIG, format: Any = "csv") -> list[Chunk]:
    layout = layout_of(config, format)
    return [job() for job in delimited_jobs(path, layout, dialect_of(config, format), 0, block_bytes)]


def words_of(chunks: list[Chunk]) -> list[str | None]:
    words: list[str | None] = []
    for chunk in chunks:
        values = [*chunk.fields[0].values.to_pylist(), None]
        words += [values[code] for code in chunk.fields[0].codes]
    return words


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_bad_row_is_named_by_its_line(tmp_path: Path, block_bytes: int, line_end: str) -> None:
    lines = [
        (HEADER, None),
        ("1,1.5,a,train", None),
        ("1,1.5,a", "expected 4 columns, found 3"),
        ("2,1.5,a,train", "label 'label' is not 0 or 1"),
        (",1.5,a,train", "label 'label' is not 0 or 1"),
        ("yes,1.5,a,train", "column 'label' holds 'yes', expected a number"),
        ("0,,b,train", None),
        ("0,1.5.2,a,train", "column 'x' holds '1.5.2', expected a number"),
        ("0,inf,a,train", "dense column 'x' is infinite or too large"),
        ("0,1e39,a,train", "dense column 'x' is infinite or too large"),
        ("0,1,a,train,more", "expected 4 columns, found 5"),
        ("", "label 'label' is not 0 or 1"),
        ('0,-2,"c,""d""",train', None),
        ("1,3,e,", "column 'split', which says the split, is missing"),
        ("1,3,e,train", None),
        ("", None),
        ("", None),
    ]
    path = tmp_path / "log.csv"
    path.write_bytes(line_end.join(line for line, _ in lines).encode())
    chunks = read(path, block_bytes)
    found = [(row.line, row.reason) for chunk in chunks for row in chunk.bad]
    assert found == [(number, why) for number, (_, why) in enumerate(lines, start=1) if why]
    assert words_of(chunks) == ["a", "b", 'c,"d"', "e"]
    dense = np.concatenate([chunk.dense[0] for chunk in chunks])
    np.testing.assert_array_equal(dense, [1.5, np.nan, -2.0, 3.0])
    assert sum(chunk.bytes_read for chunk in chunks) <= path.stat().st_size


@pytest.mark.parametrize("block_bytes", BLOCKS)
def test_a_line_that_is_not_utf8_is_a_bad_row(tmp_path: Path, block_bytes: int) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f"{HEADER}\n1,1,ä,train\n".encode() + b"1,1,\xff,train\n" + "0,1,ö,test".encode())
    chunks = read(path, block_bytes)
    assert [(row.line, row.reason) for chunk in chunks for row in chunk.bad] == [
        (3, "column 'word' is not UTF-8 text")
    ]
    assert words_of(chunks) == ["ä", "ö"]


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("neighbour", ["1,1,b,train,", "1,x,b,train,", "1,1,\xff,train,", "1,1"])
def test_bytes_of_a_column_that_is_not_used_matter_in_no_row(
    tmp_path: Path, block_bytes: int, neighbour: str
) -> None:
    path = tmp_path / "log.csv"
    lines = [HEADER + ",name", "1,1,a,train,caf\xe9", neighbour, '1,1,"ä, ö",train,"caf\xe9, caf\xe9"']
    path.write_bytes("\n".join(lines).encode("latin-1").replace(b"\xe4, \xf6", "ä, ö".encode()))
    chunks = read(path, block_bytes)
    good = neighbour == "1,1,b,train,"
    assert words_of(chunks) == (["a", "b", "ä, ö"] if good else ["a", "ä, ö"])
    assert [row.line for chunk in chunks for row in chunk.bad] == ([] if good else [3])


def test_a_line_longer_than_a_piece_of_parsing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "_PARSE_BYTES", 64)
    path = tmp_path / "log.csv"
    path.write_text(f"{HEADER}\n1,1,{'w' * 200},train\n0,1,b,train\n")
    assert words_of(read(path, 1 << 20)) == ["w" * 200, "b"]


def test_bad_rows_are_left_out_below_the_allowed_share_and_fail_above(tmp_path: Path) -> None:
    good = [row | {"x": 1, "word": "a"} for row in ANCHORS * 10]
    path = write_csv(tmp_path / "log.csv", good)
    lines = path.read_text().splitlines()
    lines[5:5] = ["1,train"] * 25
    path.write_text("\n".join(lines))
    config = CONFIG.model_copy(update={"path": str(path), "max_bad_share": 25 / 85})
    data = prepare(config, tmp_path / "out")
    assert data.manifest["bad_rows"]["count"] == 25
    assert data.manifest["bad_rows"]["examples"][0] == "log.csv:6: expected 4 columns, found 2"
    assert sum(data.rows(split) for split in ("train", "valid", "test")) == 60
    with pytest.raises(ConfigError) as error:
        prepare(config.model_copy(update={"max_bad_share": 0.29}), tmp_path / "other")
    assert "25 of 85 rows are bad (29.4118%), allowed are 29.0000%" in str(error.value)
    assert "log.csv:25: expected 4 columns, found 2\n  and 5 more" in str(error.value)


@pytest.mark.parametrize("first", [0, 60])
def test_where_bad_rows_stand_changes_nothing_unless_most_rows_are_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    monkeypatch.setattr(collect, "_ENOUGH_TO_FAIL", 20)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)
    lines = [
        "1,1,a,train",
        "0,1,a,train",
        *(f"{i % 2},1,a,{split}" for split in ("valid", "test") for i in (0, 1)),
    ] * 20
    path = tmp_path / "log.csv"
    config = CONFIG.model_copy(update={"path": str(path), "max_bad_share": 0.1})
    path.write_text("\n".join([HEADER, *lines[:first], *["2,1,a,train"] * 8, *lines[first:]]))
    assert prepare(config, tmp_path / "out").manifest["bad_rows"]["count"] == 8
    path.write_text("\n".join([HEADER, *lines[:first], *["2,1,a,train"] * 500, *lines[first:]]))
    with pytest.raises(ConfigError, match=r"of \d+ rows so far are bad \(.*\), allowed are 10\.0000%"):
        prepare(config, tmp_path / "other")


def test_compressed_files_give_the_same_data(tmp_path: Path) -> None:
    text = write_csv(tmp_path / "log.csv", [row | {"x": 1, "word": "ä"} for row in ANCHORS * 50]).read_bytes()
    half = len(text) // 2
    (tmp_path / "one.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "members.csv.gz").write_bytes(gzip.compress(text[:half]) + gzip.compress(text[half:]))
    (tmp_path / "one.csv.zst").write_bytes(pa.compress(text, "zstd", asbytes=True))
    prints = {
        prepare(CONFIG.model_copy(update={"path": str(path)}), tmp_path / "out" / path.name).fingerprint
        for path in sorted(tmp_path.glob("*.csv*"))
    }
    assert len(prints) == 1


def test_a_header_can_be_marked_as_unicode_and_other_delimiters_work(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("\ufefflabel;word;split;x\n1;a,b;train;2\n".encode())
    config = CONFIG.model_copy(update={"delimiter": ";"})
    (chunk,) = read(path, 1 << 20, config)
    assert (words_of([chunk]), chunk.labels.tolist()) == (["a,b"], [1.0])


def test_files_without_header_take_their_names_from_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("1,a,train,2\n0,b,train,3\n")
    config = CONFIG.model_copy(update={"header": False, "columns": ("label", "word", "split", "x")})
    assert words_of(read(path, 1 << 20, config)) == ["a", "b"]


def criteo_line(label: int, count: str, word: str) -> str:
    return "\t".join([str(label), *[count] * 13, *[word] * 26])


def test_criteo_lines_are_read_with_empty_fields_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "day_0.txt"
    words = ["68fd1e64", "", '"', "ffffffff", "68fd1e64"]
    lines = [criteo_line(i % 2, ["", "7", "-1"][i % 3], word) for i, word in enumerate(words)]
    path.write_text("\n".join([*lines, ""]))
    config = DataConfig(path=str(path), split=Split(random=RandomSplit()))
    (chunk,) = read(path, 1 << 20, config, "criteo")
    assert words_of([chunk]) == ["68fd1e64", None, '"', "ffffffff", "68fd1e64"]
    np.testing.assert_array_equal(chunk.dense[12], [np.nan, 7, -1, np.nan, 7])


def test_bags_of_text_drop_empty_pieces(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("label,split,tags\n1,train,a;;b\n0,train,\n1,train,;\n1,train,b\n")
    config = DataConfig(
        path="", categorical={"tags": Categorical(bag=True, separator=";")}, split=Split(column="split")
    )
    (chunk,) = read(path, 1 << 20, config)
    values = chunk.fields[0].values.to_pylist()
    assert [values[code] for code in chunk.fields[0].codes] == ["a", "b", "b"]
    assert chunk.fields[0].lengths is not None
    assert chunk.fields[0].lengths.tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize(
    ("times", "bad"),
    [
        (["3", "1.5", "2", "x"], "column 'time' holds 'x', expected a number"),
        (
            ["2024-01-03 00:00:00", "2024-01-01", "2024-01-02T01:00:00", "12 o'clock"],
            "column 'time' holds \"12 o'clock\", expected an ISO time",
        ),
        (["2024-01-03T00:00:00Z", "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z", ""], "is missing"),
    ],
)
def test_rows_are_ordered_by_numbers_and_by_iso_times(tmp_path: Path, times: list[str], bad: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text("label,word,time\n" + "".join(f"1,a,{time}\n" for time in times))
    config = DataConfig(path="", categorical=("word",), split=Split(last=LastSplit(by="time")))
    chunks = read(path, 1 << 20, config)
    order = np.concatenate([chunk.order for chunk in chunks if chunk.order is not None])
    assert order.argsort().tolist() == [1, 2, 0]
    (row,) = [row for chunk in chunks for row in chunk.bad]
    assert row.line == 5
    assert bad in row.reason


BY_TIME = DataConfig(path="", categorical=("word",), split=Split(last=LastSplit(by="time")))

NEW_YEAR = 1704067200 * 10**6  # 2024


@pytest.mark.parametrize("block_bytes", [1 << 20, 1])
@pytest.mark.parametrize("first", ["1,a,", "1,a,nan", "1,a,soon", "1,a,2024-01-01,5", "1", "1,\xff,now"])
@pytest.mark.parametrize("times", [["2024-01-02", "2024-01-01"], ["2", "1"]])
def test_a_first_line_that_cannot_be_read_says_nothing_of_the_order(
    tmp_path: Path, first: str, times: list[str], block_bytes: int
) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(
        "\n".join(["label,word,time", first, *(f"1,b,{time}" for time in times)]).encode("latin-1")
    )
    chunks = read(path, block_bytes, BY_TIME)
    order = np.concatenate([chunk.order for chunk in chunks if chunk.order is not None])
    assert order.argsort().tolist() == [1, 0]
    assert [row.line for chunk in chunks for row in chunk.bad] == [2]


@pytest.mark.parametrize("bad", ["", "1,a,x\n"])
@pytest.mark.parametrize("zone", ["", "Z"])
def test_iso_times_may_have_nanoseconds_beside_other_fractions(tmp_path: Path, zone: str, bad: str) -> None:
    fractions = [".000002001", ".000001", "", ".5", ".123456789"]
    for times in (fractions, fractions[::-1], ["9999-12-31 00:00:00", *fractions]):
        days = [time if "-" in time else f"2024-01-01T00:00:00{time}" for time in times]
        path = tmp_path / "log.csv"
        path.write_text("label,word,time\n" + bad + "".join(f"1,a,{day}{zone}\n" for day in days))
        (chunk,) = read(path, 1 << 20, BY_TIME)
        expected = [253402214400 * 10**6 if "-" in t else NEW_YEAR + int(t[1:7].ljust(6, "0")) for t in times]
        assert chunk.order is not None
        assert chunk.order.tolist() == expected
        assert len(chunk.bad) == (1 if bad else 0)


@pytest.mark.parametrize("by_time", [False, True])
def test_a_long_value_in_the_first_line_is_read(tmp_path: Path, by_time: bool) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"label,x,word,split,time\n1,1,{'w' * 140_000},train,2024-01-01\n")
    config = BY_TIME if by_time else CONFIG
    assert words_of(read(path, 1 << 20, config)) == ["w" * 140_000]


BREAK = '1,1,"a\nb",train'


@pytest.mark.parametrize("block_bytes", BLOCKS)
@pytest.mark.parametrize("bad", ["", "x,1,a,train", "1,1,\xff,train"])
@pytest.mark.parametrize(
    "broken", [BREAK, '1,1,"u\n1,5,7",train', '1,1,"a\n\nb\n",train', '1,1,"a\r\nb",train', '1,1,"a']
)
def test_a_line_break_inside_quotes_is_told_with_its_line(
    tmp_path: Path, block_bytes: int, bad: str, broken: str
) -> None:
    lines = [HEADER, '0,1,"c",train', bad or "0,1,d,train", '0,1,e"f,train', broken, "1,1,a,train", broken]
    path = tmp_path / "log.csv"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(ConfigError, match=r"log\.csv:5: a quoted value holds a line break"):
        read(path, block_bytes)


def test_a_line_break_where_pieces_of_parsing_meet_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.csv"
    for piece in range(30, 60):
        monkeypatch.setattr(delimited, "_PARSE_BYTES", piece)
        path.write_text(f"{HEADER}\n0,1,c,train\n0,1,d,train\n{BREAK}\n1,1,e,train\n")
        with pytest.raises(ConfigError, match=r"log\.csv:4: a quoted value holds a line break"):
            read(path, 1 << 20)


def test_a_line_break_inside_the_header_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f'{HEADER},"a\nb"\n1,1,a,train,1\n')
    with pytest.raises(ConfigError, match=r"log\.csv:1: a quoted value holds a line break"):
        read(path, 1 << 20)


def test_a_carriage_return_inside_a_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(f"{HEADER}\n1,1,a,train\n1,1,b\r,train\n".encode())
    with pytest.raises(ConfigError, match=r"log\.csv:3: a carriage return stands inside the line"):
        read(path, 1 << 20)


@pytest.mark.parametrize("config", [CONFIG, BY_TIME])
def test_lines_that_end_with_a_carriage_return_alone_are_told(tmp_path: Path, config: DataConfig) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"label,x,word,split,time\r1,1,a,train,1\r1,1,b,train,2\r")
    with pytest.raises(ConfigError, match=r"log\.csv:1: a carriage return stands inside the header; end"):
        read(path, 1 << 20, config)
    columns = ("label", "x", "word", "split", "time")
    headless = config.model_copy(update={"header": False, "columns": columns})
    path.write_bytes(b"1,1,a,train,1\r1,1,b,train,2\r")
    with pytest.raises(ConfigError, match=r"log\.csv:1: a carriage return stands inside the line"):
        read(path, 1 << 20, headless)
    path.write_bytes(b"1,1,a\r,train,1\n1,1,b,train,2\n")
    with pytest.raises(ConfigError, match=r"log\.csv:1: a carriage return stands inside the line"):
        read(path, 1 << 20, headless)
    path.write_bytes(b"label,x,word,split,time," + b"w" * 140_000 + b"\n1,1,a,train,1,1\n")
    with pytest.raises(ConfigError, match=r"log\.csv:1: the header cannot be read: field larger"):
        read(path, 1 << 20, config)
