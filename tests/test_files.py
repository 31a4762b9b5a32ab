import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoembed.files import sha256_of, write_file, writing


def test_a_file_is_written_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    assert write_file(path, [b"new ", memoryview(b"content")]) == 11
    assert path.read_bytes() == b"new content"
    assert sha256_of(path) == hashlib.sha256(b"new content").hexdigest()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def parts() -> Iterator[bytes]:
        yield b"new"
        raise RuntimeError("the disk is on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_file(path, parts())
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_told_with_the_file_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        OSError, match=rf"{path}: No space left on device; free space there, then run"
    ) as told:
        write_file(path, [b"new"])
    assert told.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_rights_that_may_be_missing_to_what_is_read_are_told_as_they_are(tmp_path: Path) -> None:
    for number, is_told in ((errno.ENOSPC, True), (errno.EACCES, False), (errno.ENOENT, False)):
        with pytest.raises(OSError) as found, writing(tmp_path, reads_too=True):
            raise OSError(number, "why", "a log")
        assert found.value.errno == number and (f"{tmp_path}: " in str(found.value)) == is_told
        assert ("a log" in str(found.value)) == (not is_told)


@pytest.mark.skipif(os.name == "nt", reason="file modes are a POSIX matter")
def test_a_new_file_has_the_rights_that_open_would_give(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_file(tmp_path / "ours", [b""])
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")}
    assert len(modes) == 1


def test_a_folder_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none/file: No such.*make the folder that it should"):
        write_file(tmp_path / "none" / "file", [b""])
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="choose another place"):
        write_file(tmp_path / "file" / "file", [b""])
