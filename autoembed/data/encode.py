"""The second pass: raw columns become the columns of each split, ids become frequency ranks of train."""

from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoembed.budget import format_bytes
from autoembed.config import ConfigError
from autoembed.data.bag_weights import FLOAT32_MOST
from autoembed.data.chunk import SPLITS, Layout
from autoembed.data.collect import RawField, RawLog
from autoembed.data.columns import READ_ROWS, NpyWriter, RawColumn, write_npy
from autoembed.data.config import Categorical, DataConfig, LastSplit, RandomSplit
from autoembed.data.hashed_ids import FieldIds, HashedIds, distinct_ids
from autoembed.data.id_table import IdTable
from autoembed.data.memory import free_bytes
from autoembed.data.split import OrderSplit, last_starts, random_codes

Array = npt.NDArray[Any]
Written = dict[str, dict[str, Any]]  # path inside the folder -> size and checksum
_SPARSE = 8
_COUNT_BYTES = 8  # of a hashed row: its look-ups in train


def assign_splits(log: RawLog, config: DataConfig) -> None:
    """Fill the split column where it was not read from the data."""
    chosen = config.split.chosen
    if isinstance(chosen, RandomSplit):
        for first in range(0, log.rows, READ_ROWS):
            log.split.append(random_codes(chosen, first, min(READ_ROWS, log.rows - first)))
    elif isinstance(chosen, LastSplit):
        starts = last_starts(chosen, log.rows)
        if log.order is not None:
            assigned = OrderSplit(log.order.pieces, starts)
            for keys in log.order.pieces():
                log.split.append(assigned.codes(keys))
        else:
            for first in range(0, log.rows, READ_ROWS):
                rows = np.arange(first, min(first + READ_ROWS, log.rows))
                log.split.append(np.searchsorted(starts, rows, side="right"))


def _by_split(log: RawLog, column: RawColumn) -> Iterator[tuple[int, Array]]:
    """(split, the column's values in it) piece by piece."""
    for codes, values in zip(log.split.pieces(), column.pieces(), strict=True):
        for split in range(len(SPLITS)):
            yield split, values[codes == split]


def write_labels(log: RawLog, folder: Path, written: Written, label: str) -> dict[str, dict[str, int]]:
    """Rows and positives of every split. Raises ConfigError for empty splits and constant labels."""
    rows = np.zeros(len(SPLITS), dtype=np.int64)
    positives = np.zeros(len(SPLITS), dtype=np.int64)
    for split, labels in _by_split(log, log.labels):
        rows[split] += len(labels)
        positives[split] += int(labels.sum())
    for split, name in enumerate(SPLITS):
        if rows[split] == 0:
            raise ConfigError(f"the split {name!r} has no rows; change key 'split'")
        if positives[split] in (0, rows[split]):
            value = int(positives[split] > 0)
            raise ConfigError(
                f"the label {label!r} is {value} in all {rows[split]} rows of {name}; "
                "accuracy needs both values: check keys 'label' and 'split'"
            )
    writers = [
        NpyWriter(folder / name / "label.npy", np.float32, (int(rows[split]),))
        for split, name in enumerate(SPLITS)
    ]
    for split, labels in _by_split(log, log.labels):
        writers[split].append(labels)
    for name, writer in zip(SPLITS, writers, strict=True):
        written[f"{name}/label.npy"] = writer.close()
    return {
        name: {"rows": int(rows[split]), "positives": int(positives[split])}
        for split, name in enumerate(SPLITS)
    }


def write_dense(
    log: RawLog, layout: Layout, folder: Path, written: Written, rows: list[int]
) -> list[dict[str, Any]]:
    """One (rows, C) float32 matrix per split; -> name, kind, mean, std of every column.

    Raises ConfigError where a standardised value does not fit float32.
    """
    described = []
    for (name, transform), column in zip(layout.dense.items(), log.dense, strict=True):
        mean, std = _train_moments(log, column) if transform == "standard" else (0.0, 1.0)
        described.append({"name": name, "kind": transform, "mean": mean, "std": std})
    writers = [
        NpyWriter(folder / name / "dense.npy", np.float32, (rows[split], len(described)))
        for split, name in enumerate(SPLITS)
    ]
    sources = [column.pieces() for column in log.dense]
    for codes in log.split.pieces() if log.dense else ():
        matrix = np.empty((len(codes), len(sources)), dtype=np.float32)
        for position, (source, facts) in enumerate(zip(sources, described, strict=True)):
            values = next(source)
            if facts["kind"] == "standard":
                values = np.nan_to_num((values - facts["mean"]) / facts["std"], nan=0.0)
                _refuse_overflow(values, codes, facts)
            matrix[:, position] = values
        for split, writer in enumerate(writers):
            writer.append(matrix[codes == split])
    for column in log.dense:
        column.remove()
    for name, writer in zip(SPLITS, writers, strict=True):
        written[f"{name}/dense.npy"] = writer.close()
    return described


def _refuse_overflow(values: Array, codes: Array, facts: dict[str, Any]) -> None:
    beyond = np.flatnonzero(np.abs(values) > FLOAT32_MOST)
    if len(beyond):
        value, split = values[beyond[0]] * facts["std"] + facts["mean"], SPLITS[codes[beyond[0]]]
        raise ConfigError(
            f"dense column {facts['name']!r} holds {value:.6g} in {split}, too large once standardised: "
            f"in train its mean is {facts['mean']:.6g}, its standard deviation {facts['std']:.6g}; "
            "repair the values, or use 'log' or 'none' in place of 'standard'"
        )


def _train_moments(log: RawLog, column: RawColumn) -> tuple[float, float]:
    """Mean and standard deviation over train, missing values left out (Chan's merge of pieces).

    A column that hardly varies counts as constant, with a deviation of 1: divided by less, values of other
    splits would not fit float32.
    """
    count, mean, squares = 0, 0.0, 0.0
    for split, values in _by_split(log, column):
        values = values[~np.isnan(values)] if split == 0 else values[:0]
        if len(values) == 0:
            continue
        piece_mean = float(values.mean())
        piece_squares = float(((values - piece_mean) ** 2).sum())
        difference = piece_mean - mean
        total = count + len(values)
        squares += piece_squares + difference**2 * count * len(values) / total
        mean += difference * len(values) / total
        count = total
    std = float(np.sqrt(squares / count)) if count else 0.0
    return mean, std if std > max(1e-12 * abs(mean), 1e-30) else 1.0


def refuse_too_large(layout: Layout) -> None:
    """Raise ConfigError where a field is hashed to more rows than there is memory to count them in."""
    free = free_bytes()
    for name, settings in layout.categorical.items():
        rows = settings.hash_rows or 0
        if free is not None and rows * _COUNT_BYTES > free:
            raise _too_large(name, rows, f", {format_bytes(free)} are free")


def _too_large(name: str, hash_rows: int, free: str = "") -> ConfigError:
    return ConfigError(
        f"column {name!r}: hash_rows {hash_rows} takes {format_bytes(hash_rows * _COUNT_BYTES)} while "
        f"preparing ({_COUNT_BYTES} bytes a row){free}; make it smaller"
    )


Writer = Callable[..., tuple[dict[str, Any], Written]]


def _tells_too_large(write: Writer) -> Writer:
    """Of a field without a vocabulary, lack of memory is told with what takes it."""

    @wraps(write)
    def told(log: RawLog, raw: RawField, *rest: Any) -> tuple[dict[str, Any], Written]:
        try:
            return write(log, raw, *rest)
        except MemoryError:
            if raw.hash_rows is None:
                raise
            raise _too_large(raw.name, raw.hash_rows) from None

    return told


@_tells_too_large
def write_field(
    log: RawLog,
    raw: RawField,
    position: int,
    settings: Categorical,
    min_count: int,
    folder: Path,
) -> tuple[dict[str, Any], Written]:
    """A field's columns, vocabulary and counts; -> its entry in the manifest, and the files.

    Of a field without a vocabulary `train_singletons` and `unseen` tell of hashed rows, not of ids. Raises
    ConfigError where memory does not hold the counts of such a field.
    """
    written: Written = {}
    kind = raw.kind or "integers"
    vocabulary: FieldIds
    if raw.hash_rows is None:
        table = raw.table or IdTable(kind)
        seen, missing, lookups = _count(log, raw, table.size)
        vocabulary, row_of, counts = table.ranked(seen, min_count)
        raw.table = None
    else:
        seen, missing, lookups = _count(log, raw, raw.hash_rows)
        vocabulary, row_of, counts = HashedIds(kind, raw.hash_rows), None, seen
    stem = f"field_{position:03d}"
    for name, tensor in vocabulary.tensors().items():
        path = f"vocabulary/{stem}.{name}.npy"
        written[path] = write_npy(folder / path, tensor)

    unseen = np.zeros(len(SPLITS), dtype=np.int64)
    oov = np.zeros(len(SPLITS), dtype=np.int64)
    stem_of = {split: f"{name}/{stem}" for split, name in enumerate(SPLITS)}
    suffix = ".values.npy" if raw.lengths else ".npy"
    values = [
        NpyWriter(folder / f"{stem_of[split]}{suffix}", np.int32, (int(lookups[split]),)) for split in stem_of
    ]
    for split, numbers in _numbers_by_split(log, raw):
        rows = numbers + 1 if row_of is None else row_of[numbers + 1]
        values[split].append(rows)
        oov[split] += int((rows == 0).sum())
        unseen[split] += int((seen[numbers[numbers >= 0]] == 0).sum())
    for split, writer in enumerate(values):
        written[f"{stem_of[split]}{suffix}"] = writer.close()
    if raw.lengths and raw.weights:
        weights = [
            NpyWriter(folder / f"{stem}.weights.npy", np.float32, (int(lookups[split]),))
            for split, stem in stem_of.items()
        ]
        for split, values_of_split in _bags_by_split(log, raw.lengths, raw.weights):
            weights[split].append(values_of_split)
        for split, writer in enumerate(weights):
            written[f"{stem_of[split]}.weights.npy"] = writer.close()
        raw.weights.remove()
    if raw.lengths:
        _write_offsets(log, raw.lengths, folder, stem_of, written)
        raw.lengths.remove()
    raw.numbers.remove()
    writer = NpyWriter(folder / f"counts/{stem}.npy", np.int64, (vocabulary.rows,))
    writer.append(oov[:1])
    writer.append(counts)
    written[f"counts/{stem}.npy"] = writer.close()
    entry = {
        "name": raw.name,
        "rows": vocabulary.rows,
        "bag": settings.bag,
        "pooling": settings.pooling,
        "separator": settings.separator,
        "kind": vocabulary.kind,
        "min_count": min_count if raw.hash_rows is None else 1,
        "train_ids": _train_ids(seen, raw.hash_rows),
        "train_singletons": int((seen == 1).sum()),
        "lookups": dict(zip(SPLITS, lookups.tolist(), strict=True)),
        "missing": dict(zip(SPLITS, missing.tolist(), strict=True)),
        "unseen": dict(zip(SPLITS, unseen.tolist(), strict=True)),
        "row_0": dict(zip(SPLITS, oov.tolist(), strict=True)),
    }
    if settings.weights is not None:
        entry["weights"] = settings.weights
    if raw.hash_rows is not None:
        entry["hash_rows"] = raw.hash_rows
    return entry, written


def _train_ids(seen: Array, hash_rows: int | None) -> int:
    """Distinct ids in train by their look-ups, by number; estimated where numbers are hashed rows."""
    used = int(np.count_nonzero(seen))
    return used if hash_rows is None else round(distinct_ids(used, hash_rows))


def _count(log: RawLog, raw: RawField, size: int) -> tuple[Array, Array, Array]:
    """Look-ups in train by number (size,), and missing values and look-ups per split."""
    seen = np.zeros(size, dtype=np.int64)
    missing = np.zeros(len(SPLITS), dtype=np.int64)
    lookups = np.zeros(len(SPLITS), dtype=np.int64)
    for split, numbers in _numbers_by_split(log, raw):
        lookups[split] += len(numbers)
        known = numbers[numbers >= 0]
        missing[split] += len(numbers) - len(known)
        if split == 0 and size > _SPARSE * len(known):  # hashed to far more rows than a piece has look-ups
            found, times = np.unique(known, return_counts=True)
            seen[found] += times
        elif split == 0:
            found = np.bincount(known)
            seen[: len(found)] += found
    return seen, missing, lookups


def _numbers_by_split(log: RawLog, raw: RawField) -> Iterator[tuple[int, Array]]:
    if raw.lengths is None:
        yield from _by_split(log, raw.numbers)
        return
    yield from _bags_by_split(log, raw.lengths, raw.numbers)


def _bags_by_split(log: RawLog, column: RawColumn, elements: RawColumn) -> Iterator[tuple[int, Array]]:
    """(split, the elements of its bags) piece by piece; `column` holds the bags' lengths."""
    totals = (int(lengths.sum(dtype=np.int64)) for lengths in column.pieces())
    pieces = zip(log.split.pieces(), column.pieces(), elements.pieces_of(totals), strict=True)
    for codes, lengths, values in pieces:
        owners = np.repeat(codes, lengths)
        for split in range(len(SPLITS)):
            yield split, values[owners == split]


def _write_offsets(
    log: RawLog, column: RawColumn, folder: Path, stem_of: dict[int, str], written: Written
) -> None:
    """offsets (rows + 1,) int64 of a bag field in every split."""
    rows = [0] * len(SPLITS)
    for codes in log.split.pieces():
        for split in stem_of:
            rows[split] += int((codes == split).sum())
    writers = {
        split: NpyWriter(folder / f"{stem}.offsets.npy", np.int64, (rows[split] + 1,))
        for split, stem in stem_of.items()
    }
    ends = [0] * len(SPLITS)
    for writer in writers.values():
        writer.append(np.zeros(1, dtype=np.int64))
    for split, lengths in _by_split(log, column):
        offsets = ends[split] + np.cumsum(lengths, dtype=np.int64)
        writers[split].append(offsets)
        ends[split] = int(offsets[-1]) if len(offsets) else ends[split]
    for split, writer in writers.items():
        written[f"{stem_of[split]}.offsets.npy"] = writer.close()
