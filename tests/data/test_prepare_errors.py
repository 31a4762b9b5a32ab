"""What cannot be prepared is refused, with the file, the key and the fix in the message."""

import gzip
from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click_logs import ANCHORS, write_csv, write_parquet

from autoembed.config import ConfigError
from autoembed.data import encode
from autoembed.data.config import Categorical, DataConfig, LastSplit, RandomSplit, Split
from autoembed.data.memory import free_bytes
from autoembed.data.prepare import prepare

ROWS = [{"label": row["label"], "split": row["split"], "word": "a", "x": 1.5} for row in ANCHORS * 3]
BY_COLUMN = Split(column="split")


def refusal(tmp_path: Path, path: Path | str, **changes: Any) -> str:
    settings: dict[str, Any] = {"categorical": ("word",), "split": BY_COLUMN} | changes
    out = tmp_path / "out"
    with pytest.raises(ConfigError) as error:
        prepare(DataConfig(path=str(path), **settings), out)
    assert not out.exists()
    assert not list(tmp_path.glob(".out*")), "nothing half-written stays"
    return str(error.value)


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, write: Any) -> None:
    path = write(tmp_path / f"log.{write.__name__[6:]}", ROWS)
    message = refusal(tmp_path, path, categorical=("user",))
    assert f"{path}: there is no column 'user'; the file has label, split, word, x" in message


def test_no_matching_file_is_told(tmp_path: Path) -> None:
    assert "no file matches" in refusal(tmp_path, tmp_path / "*.parquet")


def test_an_unclear_format_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.dat").write_text("label\n1\n")
    assert "key 'format' is needed" in refusal(tmp_path, tmp_path / "log.dat")


def test_text_under_dense_is_told_in_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", ROWS)
    assert "column 'word' holds string, expected numbers; is it categorical?" in refusal(
        tmp_path, path, dense=("word",), categorical=("x",)
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [(timedelta(hours=1), "duration[us]"), (time(1), "time64[us]")],
    ids=["duration", "time"],
)
def test_durations_and_times_of_day_under_dense_are_told_in_parquet(
    tmp_path: Path, value: object, kind: str
) -> None:
    path = write_parquet(tmp_path / "log.parquet", [row | {"took": value} for row in ROWS])
    message = refusal(tmp_path, path, dense=("took",))
    assert f"column 'took' holds {kind}, expected numbers" in message


@pytest.mark.parametrize("text", ["0", "true"])
def test_text_that_labels_or_orders_rows_is_told_in_parquet(tmp_path: Path, text: str) -> None:
    path = write_parquet(tmp_path / "log.parquet", [row | {"y": text} for row in ROWS])
    expected = "column 'y' holds string, expected numbers; write"
    message = refusal(tmp_path, path, label="y")
    assert f"{expected} the label's 0 and 1 as numbers or as booleans" in message
    message = refusal(tmp_path, path, split=Split(last=LastSplit(by="y")))
    assert f"{expected} what orders the rows as numbers or times" in message


def test_fractions_under_categorical_are_told(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", ROWS)
    message = refusal(tmp_path, path, categorical=("x",))
    assert "column 'x' (double) does not hold ids" in message
    assert "bucketize" in message


def test_lists_without_bag_and_bags_without_lists_are_told(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", [row | {"tags": ["a"], "n": 1} for row in ROWS])
    assert "set 'bag: true'" in refusal(tmp_path, path, categorical=("tags",))
    bag = {"n": Categorical(bag=True)}
    assert "expected lists or text, found int64" in refusal(tmp_path, path, categorical=bag)


@pytest.mark.filterwarnings("error")
def test_a_standardised_value_beyond_float32_is_told(tmp_path: Path) -> None:
    x = {"train": 0.0, "valid": 5.0, "test": 3e30}
    rows = [dict(ROWS[0], x=1e-9), *(dict(row, x=x[row["split"]]) for row in ROWS)]
    path = write_parquet(tmp_path / "log.parquet", rows)
    message = refusal(tmp_path, path, dense={"x": "standard"})
    assert message.startswith("dense column 'x' holds 3e+30 in test, too large once standardised")
    assert "use 'log' or 'none'" in message


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", [row for row in ROWS if row["split"] != "valid"])
    assert "the split 'valid' has no rows" in refusal(tmp_path, path)


def test_a_split_value_in_no_list_is_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", [*ROWS, dict(ROWS[0], split="holdout")])
    message = refusal(tmp_path, path)
    assert "holds 'holdout', which key 'split' lists nowhere" in message
    ignoring = Split(column="split", ignore=("holdout",))
    config = DataConfig(path=str(path), categorical=("word",), split=ignoring)
    assert prepare(config, tmp_path / "fine").rows("train") == 6


@pytest.mark.parametrize("label", [0, 1])
def test_a_constant_label_is_told(tmp_path: Path, label: int) -> None:
    rows = [dict(row, label=label) if row["split"] == "test" else row for row in ROWS]
    message = refusal(tmp_path, write_parquet(tmp_path / "log.parquet", rows))
    assert f"the label 'label' is {label} in all 6 rows of test" in message


def test_a_log_without_rows_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("label,split,word\n")
    assert "hold no rows" in refusal(tmp_path, tmp_path / "log.csv")


def test_a_type_that_changes_between_files_is_told(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    write_parquet(tmp_path / "b.parquet", [dict(row, word=1) for row in ROWS])
    message = refusal(tmp_path, tmp_path / "*.parquet")
    assert "'word' holds strings in one file and integers in another" in message


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("keep", [0.5, 0.97])
def test_a_cut_off_stream_is_told(tmp_path: Path, suffix: str, keep: float) -> None:
    text = write_csv(tmp_path / "log.csv", ROWS * 200).read_bytes()
    packed = gzip.compress(text) if suffix == ".gz" else pa.compress(text, "zstd", asbytes=True)
    path = tmp_path / f"cut.csv{suffix}"
    path.write_bytes(packed[: int(len(packed) * keep)])
    message = refusal(tmp_path, path)
    assert str(path) in message
    assert "damaged or cut off" in message


def test_a_damaged_parquet_file_is_told(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "log.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path}: cannot be read as Parquet" in refusal(tmp_path, path)


def test_a_header_that_repeats_a_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("label,word,word\n1,a,b\n")
    assert "names the column 'word' twice" in refusal(tmp_path, tmp_path / "log.csv")


def test_a_parquet_file_that_repeats_a_name_is_told_where_it_is_used(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    path = tmp_path / "log.parquet"
    pq.write_table(table.append_column("x", table["x"]), path)
    config = DataConfig(path=str(path), categorical=("word",), split=BY_COLUMN)
    assert prepare(config, tmp_path / "fine").rows("train") == 6
    message = refusal(tmp_path, path, dense=("x",))
    assert message == f"{path}: the file has the column 'x' twice; rename one"


HUGE = {"word": Categorical(hash_rows=2_000_000_000)}


def test_more_hashed_rows_than_memory_are_refused_before_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "log.csv", [*ROWS, dict(ROWS[0], label="x")])
    monkeypatch.setattr(encode, "free_bytes", lambda: 8 << 30)
    message = refusal(tmp_path, path, categorical=HUGE)
    assert message == (
        "column 'word': hash_rows 2000000000 takes 14.9 GiB while preparing (8 bytes a row), 8 GiB are free; "
        "make it smaller"
    )


def test_hashed_rows_that_memory_does_not_hold_after_all_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError

    path = write_csv(tmp_path / "log.csv", ROWS)
    monkeypatch.setattr(encode, "free_bytes", lambda: None)
    monkeypatch.setattr(encode, "_count", full)
    message = refusal(tmp_path, path, categorical=HUGE)
    assert "hash_rows 2000000000 takes 14.9 GiB while preparing (8 bytes a row); make it" in message


def test_free_memory_is_no_more_than_the_process_may_take() -> None:
    resource = pytest.importorskip("resource")
    before = free_bytes()
    if before is None:
        pytest.skip("the system does not tell")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), hard))
    try:
        limited = free_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert before > 0
    assert limited is not None
    assert limited <= 64 << 20


def test_text_to_be_bucketized_is_a_bad_row(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ROWS)
    message = refusal(tmp_path, path, categorical={"word": Categorical(bucketize=True)})
    assert "log.csv:2: column 'word' holds 'a', expected a number" in message


def test_too_small_shares_leave_an_empty_split(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ROWS)
    for split in (Split(random=RandomSplit(valid=0.001)), Split(last=LastSplit(valid=0.001))):
        assert "the split 'valid' has no rows" in refusal(tmp_path, path, split=split)


def test_other_data_in_the_place_is_never_overwritten_unasked(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ROWS)
    config = DataConfig(path=str(path), categorical=("word",), split=BY_COLUMN)
    first = prepare(config, tmp_path / "out")
    changed = config.model_copy(update={"min_count": 2})
    with pytest.raises(ConfigError, match=r"was prepared with other keys \(min_count\)"):
        prepare(changed, tmp_path / "out")
    second = prepare(changed, tmp_path / "out", overwrite=True)
    assert second.fingerprint == prepare(changed, tmp_path / "out").fingerprint
    write_csv(tmp_path / "log.csv", [*ROWS, dict(ROWS[0], word="new")])
    with pytest.raises(ConfigError, match="was prepared from other files"):
        prepare(changed, tmp_path / "out")
    assert first.manifest["config"]["min_count"] == 1


def test_a_folder_of_something_else_is_never_overwritten_even_when_asked(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ROWS)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    config = DataConfig(path=str(path), categorical=("word",), split=BY_COLUMN)
    with pytest.raises(ConfigError, match="is no prepared data"):
        prepare(config, tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "one.jpg").exists()
