from pathlib import Path

import pytest

from autoembed.damage import DamagedError, check_checksums, checksums_of, read_json


def test_files_as_they_were_written_pass_and_any_other_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"rows")
    (tmp_path / "b").write_bytes(b"network")
    checksums = checksums_of(tmp_path, ("a", "b"))
    assert checksums["a"]["bytes"] == 4 and len(checksums["a"]["sha256"]) == 64
    check_checksums(tmp_path, checksums, "copy it back")
    check_checksums(tmp_path, {}, "copy it back")
    (tmp_path / "b").write_bytes(b"netwerk")
    with pytest.raises(DamagedError, match=f"{tmp_path / 'b'}: altered .*; copy it back$"):
        check_checksums(tmp_path, checksums, "copy it back")
    (tmp_path / "a").write_bytes(b"row")
    with pytest.raises(DamagedError, match=r"a: cut off or altered, 3 bytes instead of 4; copy it back$"):
        check_checksums(tmp_path, checksums, "copy it back")
    (tmp_path / "a").unlink()
    with pytest.raises(DamagedError, match=r"a: missing; copy it back$"):
        check_checksums(tmp_path, checksums, "copy it back")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b'{"loss": 1}', b"\xff\0"])
def test_json_that_was_cut_or_altered_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "point.json"
    path.write_bytes(b'{"bytes": 3}')
    assert read_json(path, ("bytes",), "copy it back") == {"bytes": 3}
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{path}: .*altered.*; copy it back$"):
        read_json(path, ("bytes",), "copy it back")
