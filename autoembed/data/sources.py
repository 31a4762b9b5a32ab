"""The raw files of a click log: found, put in order, and recognised by their names."""

import glob
import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoembed.config import ConfigError
from autoembed.data.config import DataConfig, Format

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
    """All files that `config.path` names, numbers in names in numeric order, and their format.

    Raises ConfigError where nothing matches or the format is not clear.
    """
    files: list[Path] = []
    for entry in config.paths:
        found = _expand(entry, config.format)
        if not found:
            raise ConfigError(f"key 'path': no file matches {entry!r}; check the path and the suffixes")
        files.extend(found)
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
        inside = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith((".", "_"))]
        return sorted((p for p in inside if format is not None or _format_of(p)), key=_natural)
    matches = [Path(match) for match in glob.glob(entry, recursive=True)]
    return sorted((match for match in matches if match.is_file()), key=_natural)


def _format_of(path: Path) -> Format | None:
    suffix = path.with_suffix("").suffix if compression_of(path) else path.suffix
    return _SUFFIXES.get(suffix.lower())


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which day_2 comes before day_10."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
