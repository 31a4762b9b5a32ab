"""The first pass: the raw log, read once, becomes numeric columns on disk and one id table per field.

Ids get provisional numbers in the order in which they are seen; ranks come when all counts are known. Ids of
a field without a vocabulary are hashed at once: their numbers are their rows less one, and no table is kept.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autoembed.config import ConfigError
from autoembed.data.categorical import Encoded
from autoembed.data.chunk import BadRow, Chunk, Kinds, Layout
from autoembed.data.columns import RawColumn
from autoembed.data.config import Transform
from autoembed.data.hashed_ids import hashed_rows
from autoembed.data.id_table import IdTable
from autoembed.data.vocabulary import Kind

BAD_ROWS_NAMED = 20
_ENOUGH_TO_FAIL = 1 << 20


@dataclass
class RawField:
    """A field's provisional numbers, -1 = missing; `lengths` and `weights` of bags.

    `hash_rows`: the rows that its ids are hashed to; `table` stays None then.
    """

    name: str
    numbers: RawColumn
    lengths: RawColumn | None
    kind: Kind | None = None  # what empty columns say counts only until values come
    has_values: bool = False
    table: IdTable | None = None
    weights: RawColumn | None = None
    hash_rows: int | None = None


@dataclass
class RawLog:
    """What the first pass leaves. Dense columns: float32, transformed where that needs no statistics,
    else float64 with NaN = missing."""

    folder: Path
    labels: RawColumn
    dense: list[RawColumn]
    fields: list[RawField]
    split: RawColumn
    order: RawColumn | None
    rows: int = 0
    bad_count: int = 0
    bad: list[BadRow] = field(default_factory=list)
    kinds: Kinds = field(default_factory=Kinds)

    @property
    def bad_share(self) -> float:
        return self.bad_count / max(self.rows + self.bad_count, 1)


def collect(
    chunks: Iterable[Chunk],
    layout: Layout,
    folder: Path,
    max_bad_share: float,
    advance: Callable[[Chunk], None],
) -> RawLog:
    """Write the chunks' columns below `folder`. `advance` is called after each chunk.

    Raises ConfigError where too many rows are bad or a column changes its type, KeyCollision as IdTable.
    """
    log = RawLog(
        folder,
        RawColumn(folder / "label", np.float32),
        [
            RawColumn(folder / f"dense_{position}", np.float64 if transform == "standard" else np.float32)
            for position, transform in enumerate(layout.dense.values())
        ],
        [
            RawField(
                name,
                RawColumn(folder / f"numbers_{position}", np.int32),
                RawColumn(folder / f"lengths_{position}", np.int32) if settings.bag else None,
                weights=RawColumn(folder / f"weights_{position}", np.float32) if settings.weights else None,
                hash_rows=settings.hash_rows,
            )
            for position, (name, settings) in enumerate(layout.categorical.items())
        ],
        RawColumn(folder / "split", np.int8),
        RawColumn(folder / "order", np.float64) if layout.order else None,
    )
    for chunk in chunks:
        _append(log, chunk, layout)
        # few rows may be bad in all of a log that begins with many; half-way between what is allowed and
        # all of them is no accident of the order
        hopeless = (1 + max_bad_share) / 2 if max_bad_share > 0 else 0.0
        if log.rows + log.bad_count >= _ENOUGH_TO_FAIL and log.bad_share > hopeless:
            raise _too_many(log, max_bad_share, " so far")
        advance(chunk)
    if log.bad_share > max_bad_share:
        raise _too_many(log, max_bad_share)
    if log.rows == 0:
        raise ConfigError("the files of key 'path' hold no rows")
    return log


def _append(log: RawLog, chunk: Chunk, layout: Layout) -> None:
    log.kinds.check(chunk, layout)
    log.rows += chunk.rows
    log.bad_count += len(chunk.bad)
    log.bad.extend(chunk.bad[: BAD_ROWS_NAMED - len(log.bad)])
    log.labels.append(chunk.labels)
    for column, transform, values in zip(log.dense, layout.dense.values(), chunk.dense, strict=True):
        column.append(_transformed(values, transform))
    if chunk.split is not None:
        log.split.append(chunk.split)
    if log.order is not None and chunk.order is not None:
        log.order.append(chunk.order)
    for raw, encoded in zip(log.fields, chunk.fields, strict=True):
        raw.numbers.append(_numbers(raw, encoded))
        if raw.lengths is not None and encoded.lengths is not None:
            raw.lengths.append(encoded.lengths)
        if raw.weights is not None and encoded.weights is not None:
            raw.weights.append(encoded.weights)


def _numbers(raw: RawField, encoded: Encoded) -> npt.NDArray[np.int32]:
    """Provisional numbers of a chunk's ids (N,), -1 = missing."""
    if len(encoded.values) == 0:
        raw.kind = raw.kind or encoded.kind
        return encoded.codes
    if not raw.has_values:
        raw.kind, raw.has_values = encoded.kind, True
    if raw.kind != encoded.kind:
        raise ConfigError(
            f"column {raw.name!r} holds {raw.kind} in one file and {encoded.kind} in another; "
            "write the same type into all files"
        )
    if raw.hash_rows is not None:
        numbers = (hashed_rows(encoded.keys, raw.hash_rows) - 1).astype(np.int32)
    else:
        raw.table = raw.table or IdTable(encoded.kind)
        numbers = raw.table.numbers_of(encoded.values, encoded.keys, encoded.exact)
    return np.append(numbers, np.int32(-1))[encoded.codes]  # code -1 picks the last


def _transformed(values: npt.NDArray[np.float64], transform: Transform) -> npt.NDArray[np.float64]:
    """`log` and `none` need no statistics; NaN stays for `standard`, else becomes 0."""
    if transform == "standard":
        return values
    if transform == "log":
        values = np.sign(values) * np.log1p(np.abs(values))
    return np.where(np.isnan(values), 0.0, values)


def _too_many(log: RawLog, max_bad_share: float, so_far: str = "") -> ConfigError:
    shown = "\n".join(f"  {row}" for row in log.bad)
    more = log.bad_count - len(log.bad)
    more_line = f"\n  and {more} more" if more > 0 else ""
    return ConfigError(
        f"{log.bad_count} of {log.rows + log.bad_count} rows{so_far} are bad ({log.bad_share:.4%}), "
        f"allowed are {max_bad_share:.4%}; repair them or raise 'max_bad_share':\n{shown}{more_line}"
    )
