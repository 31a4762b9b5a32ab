"""A folder that is either whole or not there: written beside its place, renamed into it at the end."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoembed.files import sync_folder


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder to write into; without an error it replaces `out`, else it is removed.

    A killed process leaves `.NAME.partial` behind, which the next one clears. A link stays, and the folder
    that it names is replaced. Raises BlockingIOError while another process writes to the same place,
    ValueError where a folder cannot be replaced: the present one, and where a disk is mounted.
    """
    asked, out = out, out.resolve()
    if out == Path.cwd() or os.path.ismount(out):
        what = "the present folder" if out == Path.cwd() else "where a disk is mounted"
        raise ValueError(f"{asked} is {what}, and cannot be replaced; name a folder in it: {out / 'NAME'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.partial"
    lock = _locked(partial)
    try:
        _clear(partial)
        yield partial
        for root, _, _ in os.walk(partial):
            sync_folder(Path(root))
        old = out.parent / f".{out.name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        partial.rename(out)
        sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _locked(partial: Path) -> int:
    """A descriptor of the partial folder that holds the lock on it."""
    while True:
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise BlockingIOError(
                f"another process is writing {partial.parent / partial.name[1:-8]}; wait for it to finish"
            ) from None
        try:
            same = os.fstat(lock).st_ino == partial.stat().st_ino
        except FileNotFoundError:
            same = False
        if same:  # else the other process has just renamed it
            return lock
        os.close(lock)


def _clear(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
