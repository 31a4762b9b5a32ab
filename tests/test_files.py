import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoembed.files import sha256_of, write_file


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


@pytest.mark.skipif(os.name == "nt", reason="file modes are a POSIX matter")
def test_a_new_file_has_the_rights_that_open_would_give(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_file(tmp_path / "ours", [b""])
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "ours")}
    assert len(modes) == 1
