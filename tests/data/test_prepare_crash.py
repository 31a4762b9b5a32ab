"""A killed prepare leaves nothing that could be taken for data, and the next one starts afresh."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click_logs import ANCHORS, write_csv

from autoembed.config import ConfigError
from autoembed.data.config import DataConfig, Split
from autoembed.data.prepare import PrepareProgress, prepare
from autoembed.data.prepared import open_prepared
from autoembed.data.publish import whole_folder

SCRIPT = """
import sys, time
from pathlib import Path
from autoembed.data.config import DataConfig, Split
from autoembed.data.prepare import prepare

def wait(at):
    if at.stage == sys.argv[3]:
        print("waiting", flush=True)
        time.sleep(60)

config = DataConfig(path=sys.argv[1], categorical=("word",), split=Split(column="split"))
prepare(config, Path(sys.argv[2]), progress=wait)
"""


@pytest.mark.parametrize("stage", ["read", "write"])
def test_a_process_killed_while_preparing_leaves_no_data_and_no_obstacle(tmp_path: Path, stage: str) -> None:
    log = write_csv(tmp_path / "log.csv", [row | {"word": "a"} for row in ANCHORS])
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(log), str(out), stage], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    config = DataConfig(path=str(log), categorical=("word",), split=Split(column="split"))
    with pytest.raises(BlockingIOError, match="another process is writing"):
        prepare(config, out)
    process.kill()
    process.wait()
    process.stdout.close()
    assert not out.exists()
    assert (tmp_path / ".out.partial").exists()
    with pytest.raises(ConfigError, match="no prepared data here"):
        open_prepared(tmp_path / ".out.partial")
    prepare(config, out)
    open_prepared(out, verify=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "out"]


def test_an_error_keeps_the_old_folder_and_removes_the_new(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(KeyError), whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("new")
        raise KeyError
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_preparing_again_changes_nothing_and_reads_nothing(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", [row | {"word": "a"} for row in ANCHORS])
    config = DataConfig(path=str(log), categorical=("word",), split=Split(column="split"))
    first = prepare(config, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").stat()
    log.write_bytes(log.read_bytes())  # the same content, a newer time
    time.sleep(0.01)
    seen: list[PrepareProgress] = []
    again = prepare(config, tmp_path / "out", progress=seen.append)
    assert (tmp_path / "out" / "manifest.json").stat() == before
    assert (again.fingerprint, seen) == (first.fingerprint, [])


def test_folders_beside_it_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("autoembed.data.publish.sync_folder", synced.append)
    (tmp_path / "beside" / "deep").mkdir(parents=True)
    with whole_folder(tmp_path / "out") as folder:
        (folder / "train").mkdir()
    partial = tmp_path / ".out.partial"
    assert synced == [partial, partial / "train", tmp_path]


def prepared_log(tmp_path: Path) -> DataConfig:
    rows = [row | {"word": "a", "page": "b"} for row in ANCHORS]
    log = write_csv(tmp_path / "log.csv", rows)
    return DataConfig(path=str(log), categorical=("word", "page"), split=Split(column="split"))


def test_damaged_columns_are_written_anew_where_overwriting_is_allowed(tmp_path: Path) -> None:
    config, out = prepared_log(tmp_path), tmp_path / "out"
    prepare(config, out)
    column = out / "train" / "label.npy"
    content = column.read_bytes()
    column.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    prepare(config, out, overwrite=True)
    open_prepared(out, verify=True)
    assert column.read_bytes() == content


def test_other_fields_first_are_other_data(tmp_path: Path) -> None:
    config, out = prepared_log(tmp_path), tmp_path / "out"
    prepare(config, out)
    turned = config.model_copy(update={"categorical": ("page", "word")})
    with pytest.raises(ConfigError, match=r"was prepared with other keys \(categorical\)"):
        prepare(turned, out)
    assert [field.name for field in prepare(turned, out, overwrite=True).fields] == ["page", "word"]


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "data")  # which is not there yet
    for overwrite in (False, True, True):
        config = prepared_log(tmp_path).model_copy(update={"min_count": 1 + overwrite})
        prepare(config, tmp_path / "out", overwrite=overwrite)
        open_prepared(tmp_path / "disk" / "data", verify=True)
    assert (tmp_path / "out").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "log.csv", "out"]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["data"]


def test_folders_that_cannot_be_replaced_are_refused_before_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepared_log(tmp_path)
    seen: list[PrepareProgress] = []
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="the present folder, and cannot be replaced; name a folder in it"):
        prepare(config, Path("."), progress=seen.append)
    (tmp_path / "mounted").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "mounted")
    with pytest.raises(ValueError, match=r"mounted is where a disk is mounted.*mounted/NAME"):
        prepare(config, tmp_path / "mounted", progress=seen.append)
    assert not seen
