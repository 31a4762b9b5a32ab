"""The raw files of a click log: found, put in order, and recognised by their names."""

import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoembed.config import ConfigError
from autoembed.data.config import DataConfig, Format
from autoembed.data.manifest import MANIFEST

_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "criteo",
    ".txt": "criteo",
}
_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
_COMPARED_BY_CONTENT_BYTES = 64 << 20


@dataclass(frozen=True)
class SourceFile:
    """What a raw file looked like when it was read. Files of at most 64 MiB are known by their content,
    larger ones by size and time of change."""

    name: str
    size: int
    changed_ns: int | None
    digest: str | None


def find_files(config: DataConfig) -> tuple[list[Path], Format]:
    """All files that `config.path` names, each once, and their format.

    Files come in the order of the entries; those of one entry by path, numbers in numeric order. A file that
    several entries or links name is read where it is named first, if possible under its own name. Raises
    ConfigError where nothing matches or the format is not clear.
    """
    files: list[Path] = []
    for entry in config.paths:
        found = _expand(entry, config.format)
        if not found:
            raise ConfigError(f"key 'path': no file matches {entry!r}; check the path and the suffixes")
        files.extend(found)
    files = _each_once(files)
    if config.format is not None:
        return files, config.format
    formats = {_format_of(path) for path in files}
    if len(formats) > 1 or None in formats:
        names = ", ".join(sorted({path.name for path in files})[:5])
        raise ConfigError(
            f"key 'format' is needed: it does not follow from the names ({names}); "
            "write one of criteo, csv, parquet"
        )
    (format,) = formats
    assert format is not None
    return files, format


def compression_of(path: Path) -> str | None:
    """`gzip`, `zstd` or None, by the last suffix."""
    return _COMPRESSION.get(path.suffix.lower())


def describe(files: list[Path]) -> list[dict[str, Any]]:
    """A `SourceFile` per file, as it goes into the manifest; folders are left out, so data may move."""
    described = []
    for path in files:
        status = path.stat()
        by_content = status.st_size <= _COMPARED_BY_CONTENT_BYTES
        described.append(
            SourceFile(
                path.name,
                status.st_size,
                None if by_content else status.st_mtime_ns,
                hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if by_content else None,
            )
        )
    return [asdict(source) for source in described]


def _expand(entry: str, format: Format | None) -> list[Path]:
    path = Path(entry)
    if path.is_file():
        return [path]
    if path.is_dir():
        inside = _files_below(path)
        return sorted((p for p in inside if format is not None or _format_of(p)), key=_natural)
    matches = [Path(match) for match in glob.glob(_pattern(path), recursive=True)]
    return sorted((match for match in matches if match.is_file()), key=_natural)


def _pattern(path: Path) -> str:
    """The glob of an entry, in which leading folders that are there, as `exp[1]`, mean themselves."""
    there, rest = Path(path.anchor), path.relative_to(path.anchor).parts
    while rest and (there / rest[0]).is_dir():
        there, rest = there / rest[0], rest[1:]
    return str(Path(glob.escape(str(there)), *rest))


def _files_below(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Files in a folder and in the folders in it, links to folders among them.

    Left out is what is hidden, temporary (`_...`), or prepared data: an output inside its own log.
    """
    real = folder.resolve()
    if real in above or _is_prepared(folder):  # a link to a folder that it lies in would never end
        return
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read ({error})") from None
    for path in inside:
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from _files_below(path, (*above, real))
        elif path.is_file():
            yield path


def _is_prepared(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() and (folder / "train" / "label.npy").is_file()


def _each_once(files: list[Path]) -> list[Path]:
    real = [Path(os.path.realpath(path)) for path in files]
    named = {target for path, target in zip(files, real, strict=True) if not path.is_symlink()}
    first: dict[Path, Path] = {}
    for path, target in zip(files, real, strict=True):
        if not path.is_symlink() or target not in named:
            first.setdefault(target, path)
    return list(first.values())


def _format_of(path: Path) -> Format | None:
    suffix = path.with_suffix("").suffix if compression_of(path) else path.suffix
    return _SUFFIXES.get(suffix.lower())


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which day_2 comes before day_10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]
