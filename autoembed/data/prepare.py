"""Raw click logs -> a prepared folder: columns of frequency-ranked rows, vocabularies, a manifest.

The log is read once (`collect`), then columns are written per split. Memory holds the vocabularies and
a few chunks, never a column. Vocabularies, counts and dense statistics come from the train split only.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from autoembed.config import ConfigError
from autoembed.data.chunk import SPLITS, Chunk, Layout, layout_of
from autoembed.data.collect import collect
from autoembed.data.config import DataConfig, Format, check
from autoembed.data.delimited import delimited_jobs, dialect_of
from autoembed.data.encode import assign_splits, refuse_too_large, write_dense, write_field, write_labels
from autoembed.data.keys import KeyCollision
from autoembed.data.manifest import FORMAT_VERSION, fingerprint_of, read_manifest, write_manifest
from autoembed.data.ordered import run_ordered
from autoembed.data.parquet import parquet_jobs
from autoembed.data.prepared import PreparedData, is_prepared, open_prepared
from autoembed.data.publish import whole_folder
from autoembed.data.sources import describe, find_files

_SEEDS = 16


@dataclass(frozen=True)
class PrepareProgress:
    """How far it is: `done` from 0 to 1 within the stage, and the rows read so far."""

    stage: Literal["read", "write"]
    done: float
    rows: int


Progress = Callable[[PrepareProgress], None]


def prepare(
    config: DataConfig,
    out: Path,
    *,
    overwrite: bool = False,
    threads: int = 2,
    progress: Progress | None = None,
) -> PreparedData:
    """Prepare a click log into the folder `out`; returns at once where it is already there.

    Large files count as unchanged with the same size and time of change, small ones with the same
    content; with `overwrite`, what is there is compared with its checksums first. Raises ConfigError where
    the data or the configuration cannot be used, and where `out` was prepared from something else and
    `overwrite` is not set.
    """
    check(config)
    files, format = find_files(config)
    origin = {
        "config": config.model_dump(mode="json", exclude={"path"}) | {"format": format},
        "source": describe(files),
    }
    if _is_prepared(out, origin, overwrite):
        return open_prepared(out)
    layout = layout_of(config, format)
    refuse_too_large(layout)
    for seed in range(_SEEDS):
        try:
            with whole_folder(out) as folder:
                _write(config, layout, files, format, folder, origin, seed, threads, progress)
            return open_prepared(out)
        except KeyCollision:
            continue
    raise RuntimeError(f"no seed below {_SEEDS} keeps the keys of all ids distinct")


def _is_prepared(out: Path, origin: dict[str, Any], overwrite: bool) -> bool:
    """True where `out` holds just this. Raises ConfigError where it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not is_prepared(out):
        raise ConfigError(f"{out} exists and is no prepared data; choose another place or remove it")
    try:
        found = read_manifest(out)
        differing = [key for key in origin if not _same(found[key], origin[key])]
        if not differing:
            open_prepared(out, verify=overwrite)  # who asks to overwrite it may doubt it
            return True
        problem = (
            "was prepared from other files" if differing == ["source"] else "was prepared with other keys"
        )
        if "config" in differing:
            keys = sorted(k for k, v in origin["config"].items() if not _same(found["config"].get(k), v))
            problem += f" ({', '.join(keys)})"
    except ConfigError as error:
        problem = f"cannot be used: {error}"
    if not overwrite:
        raise ConfigError(f"{out} {problem}; allow overwriting it or choose another place")
    return False


def _same(one: Any, other: Any) -> bool:
    """Also in the order of keys, which is that of fields."""
    return json.dumps(one) == json.dumps(other)


def _jobs(
    files: list[Path], format: Format, config: DataConfig, layout: Layout, seed: int
) -> Iterator[Callable[[], Chunk]]:
    """The jobs of all files, in order."""
    if format == "parquet":
        for path in files:
            yield from parquet_jobs(path, layout, seed)
        return
    dialect = dialect_of(config, format)
    for path in files:
        yield from delimited_jobs(path, layout, dialect, seed)


def _write(
    config: DataConfig,
    layout: Layout,
    files: list[Path],
    format: Format,
    folder: Path,
    origin: dict[str, Any],
    seed: int,
    threads: int,
    progress: Progress | None,
) -> None:
    """Everything in the prepared folder, the manifest last."""
    report = _Reporter(progress, sum(path.stat().st_size for path in files))
    raw_folder = folder / "raw"
    raw_folder.mkdir()
    chunks = run_ordered(_jobs(files, format, config, layout, seed), threads)
    log = collect(chunks, layout, raw_folder, config.max_bad_share, report.chunk)
    report.stage("read", 1.0)
    assign_splits(log, config)
    for name in (*SPLITS, "vocabulary", "counts"):
        (folder / name).mkdir()
    written: dict[str, dict[str, Any]] = {}
    splits = write_labels(log, folder, written, config.label)
    dense = write_dense(log, layout, folder, written, [splits[name]["rows"] for name in SPLITS])
    jobs = (
        partial(write_field, log, raw, position, settings, settings.min_count or config.min_count, folder)
        for position, (raw, settings) in enumerate(zip(log.fields, layout.categorical.values(), strict=True))
    )
    fields = []
    for entry, files_of_field in run_ordered(jobs, threads):
        fields.append(entry)
        written |= files_of_field
        report.stage("write", len(fields) / (len(log.fields) + 1))
    log.labels.remove()
    log.split.remove()
    if log.order is not None:
        log.order.remove()
    raw_folder.rmdir()
    manifest = {
        "format": FORMAT_VERSION,
        **origin,
        "splits": splits,
        "dense": dense,
        "fields": fields,
        "bad_rows": {
            "count": log.bad_count,
            "share": log.bad_share,
            "examples": [str(row) for row in log.bad],
        },
        "files": dict(sorted(written.items())),
    }
    write_manifest(folder, manifest | {"fingerprint": fingerprint_of(manifest)})
    report.stage("write", 1.0)


class _Reporter:
    def __init__(self, progress: Progress | None, total_bytes: int) -> None:
        self._progress = progress
        self._total = max(total_bytes, 1)
        self._bytes = self._rows = 0

    def chunk(self, chunk: Chunk) -> None:
        self._bytes += chunk.bytes_read
        self._rows += chunk.rows
        self.stage("read", min(self._bytes / self._total, 1.0))

    def stage(self, stage: Literal["read", "write"], done: float) -> None:
        if self._progress:
            self._progress(PrepareProgress(stage, done, self._rows))
