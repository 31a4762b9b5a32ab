"""Files that are either whole or not there: written beside their place, flushed to disk, then renamed."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

Content = bytes | memoryview

_FREE = "free space there, then run the same command again"
_ALLOW = "make that place writable, or choose another"
_MAKE = "make the folder that it should be in, or choose another place"
_REMEDIES = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EROFS: _ALLOW,
    errno.EACCES: _ALLOW,
    errno.EPERM: _ALLOW,
    errno.ENOENT: _MAKE,
    errno.ENOTDIR: _MAKE,
}


def write_file(path: Path, parts: Iterable[Content]) -> int:
    """Write `parts` behind one another as `path`, replacing what was there; returns the bytes written.

    A reader sees the old file or the new one, also after a crash. Folders are not created. Raises OSError
    with the path and what to do where the disk is full or not to be written.
    """
    with writing(path):
        size = _write(path, parts)
        sync_folder(path.parent)
    return size


@contextmanager
def writing(path: Path, *, reads_too: bool = False) -> Iterator[None]:
    """A full or read-only disk within becomes an OSError of the same number, with `path` and a remedy.

    `reads_too`: missing rights stay as they are, for they may be to what is read.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None or (reads_too and remedy is not _FREE):
            raise
        raise OSError(error.errno, f"{path}: {os.strerror(error.errno or 0)}; {remedy}") from error


def _write(path: Path, parts: Iterable[Content]) -> int:
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            size = sum(file.write(part) for part in parts)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; give it the rights of any new file
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut; nothing where the system cannot."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # folders cannot be opened on Windows
        return
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
