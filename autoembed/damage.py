"""Damage to the files of a run is found before they are used, and told with the file and what to do."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from autoembed.files import sha256_of

Checksums = dict[str, dict[str, Any]]  # file, relative to its folder -> {"bytes": ..., "sha256": ...}


class DamagedError(ValueError):
    """A file of a run is missing, cut off or altered; the message names it and what to do."""


def checksums_of(folder: Path, names: Iterable[str]) -> Checksums:
    """Size and SHA-256 of files of a folder, as they are now."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)} for name in names
    }


def check_checksums(folder: Path, expected: Mapping[str, Mapping[str, Any]], remedy: str) -> None:
    """Compare files with what `checksums_of` said when they were written.

    Raises DamagedError, which ends with `remedy`. Nothing is checked where an earlier version wrote no
    checksums.
    """
    for name, facts in expected.items():
        path = folder / name
        with readable(path, remedy):
            size, found = path.stat().st_size, sha256_of(path)
        if size != facts["bytes"]:
            raise DamagedError(
                f"{path}: cut off or altered, {size} bytes instead of {facts['bytes']}; {remedy}"
            )
        if found != facts["sha256"]:
            raise DamagedError(f"{path}: altered since it was written, its SHA-256 is another; {remedy}")


def read_json(path: Path, keys: Iterable[str], remedy: str) -> dict[str, Any]:
    """A mapping with at least these keys. Raises DamagedError, which ends with `remedy`."""
    with readable(path, remedy):
        content = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise DamagedError(f"{path}: altered, it has no {', '.join(missing)}; {remedy}")
    return dict(content)


@contextmanager
def readable(path: Path, remedy: str) -> Iterator[None]:
    """What cannot be read within becomes a DamagedError that names `path`, once, and ends with `remedy`."""
    try:
        yield
    except FileNotFoundError:
        raise DamagedError(f"{path}: missing; {remedy}") from None
    except (ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        told = f"no {error}" if isinstance(error, KeyError) else str(error)
        told = told if str(path) in told else f"{path}: cut off or altered ({told})"
        raise DamagedError(f"{told}; {remedy}") from None
