"""A stretch of a raw click log, checked and encoded by itself: what readers hand to `prepare`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autoembed.config import ConfigError
from autoembed.data.bag_weights import FLOAT32_MOST, lengths_of, weights_of, wrong_weights
from autoembed.data.categorical import Encoded, bag_lists, encode_column, plain_or_dictionary
from autoembed.data.config import (
    Categorical,
    ColumnSplit,
    DataConfig,
    Format,
    LastSplit,
    Transform,
    check_columns,
)
from autoembed.data.hashed_ids import KEY_SEED
from autoembed.data.split import IGNORED, NO_SPLIT, column_codes

NumberKind = Literal["numbers", "times"]

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: its file, its line (text) or row (Parquet) counted from 1, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Chunk:
    """Rows of one file in order. labels (B,) float32, dense (C, B) float64 with NaN = missing.

    split (B,) int8 where a column says so, order (B,) float64 where a column orders the rows. kinds: what the
    dense columns and the one that orders the rows hold, by name.
    """

    file: Path
    labels: npt.NDArray[np.float32]
    dense: npt.NDArray[np.float64]
    fields: tuple[Encoded, ...]
    split: npt.NDArray[np.int8] | None
    order: npt.NDArray[np.float64] | None
    kinds: dict[str, NumberKind]
    bad: tuple[BadRow, ...]
    bytes_read: int

    @property
    def rows(self) -> int:
        return len(self.labels)


class Kinds:
    """What the numeric columns of a log hold, from its first chunk to its last."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[NumberKind, Path]] = {}  # and the file that tells

    def check(self, chunk: Chunk, layout: "Layout") -> None:
        """Raise ConfigError where numbers meet times in a column. Columns without a value say nothing."""
        columns = dict(zip(layout.dense, chunk.dense, strict=True))
        if layout.order and chunk.order is not None:
            columns[layout.order] = chunk.order
        for name, values in columns.items():
            kind, file = self._known.get(name, (None, chunk.file))
            if chunk.kinds[name] == kind or np.isnan(values).all():
                continue
            if kind is not None:
                raise ConfigError(
                    f"{chunk.file}: column {name!r} holds {chunk.kinds[name]}, but {kind} in {file}; "
                    "write the same into all files"
                )
            self._known[name] = chunk.kinds[name], chunk.file


@dataclass(frozen=True)
class Layout:
    """Which raw columns are read, and as what."""

    label: str
    dense: dict[str, Transform]
    categorical: dict[str, Categorical]
    split: ColumnSplit | None
    order: str | None

    @property
    def columns(self) -> list[str]:
        """All raw columns, each once."""
        extra = [self.split.column if self.split else None, self.order]
        extra += [settings.weights for settings in self.categorical.values()]
        names = [self.label, *self.dense, *self.categorical, *(name for name in extra if name)]
        return list(dict.fromkeys(names))


def layout_of(config: DataConfig, format: Format) -> Layout:
    """What a configuration reads from files of a format. Raises ConfigError where it does not fit them."""
    check_columns(config, format)
    chosen = config.split.chosen
    by_column = isinstance(chosen, LastSplit) and chosen.by != "order"
    return Layout(
        config.label,
        config.dense_columns(format),
        config.categorical_columns(format),
        chosen if isinstance(chosen, ColumnSplit) else None,
        chosen.by if by_column and isinstance(chosen, LastSplit) else None,
    )


def chunk_of(
    table: pa.Table,
    layout: Layout,
    file: Path,
    lines: npt.NDArray[np.int64],
    seed: int,
    bytes_read: int,
    bad: Iterable[BadRow] = (),
) -> Chunk:
    """Check and encode the columns of `table`; `lines` (B,) are the rows' places in the file.

    Text columns may be plain or dictionary-encoded; empty text was made null before. `seed` is that of
    the keys. Raises ConfigError for types that cannot be used and for split values in no list.
    """
    problems: list[BadRow] = list(bad)
    good = np.ones(table.num_rows, dtype=bool)

    def refuse(wrong: npt.NDArray[np.bool_], reason: str) -> None:
        for row in np.flatnonzero(wrong & good):
            problems.append(BadRow(file.name, int(lines[row]), reason))
        good[wrong] = False

    split = None
    if layout.split:
        split = column_codes(table[layout.split.column], layout.split, file)
        good &= split != IGNORED  # such rows may hold anything
    labels = numbers(table, layout.label, file, "write the label's 0 and 1 as numbers or as booleans")
    refuse(~((labels == 0) | (labels == 1)), f"label {layout.label!r} is not 0 or 1")
    dense = np.empty((len(layout.dense), table.num_rows), dtype=np.float64)
    for position, name in enumerate(layout.dense):
        dense[position] = numbers(table, name, file)
        refuse(np.abs(dense[position]) > FLOAT32_MOST, f"dense column {name!r} is infinite or too large")
    order = None
    if layout.order:
        order = numbers(table, layout.order, file, "write what orders the rows as numbers or times")
        refuse(np.isnan(order), f"column {layout.order!r}, which orders the rows, is missing")
    if layout.split and split is not None:
        refuse(split == NO_SPLIT, f"column {layout.split.column!r}, which says the split, is missing")
    for name, settings in layout.categorical.items():
        if settings.weights is not None:
            differ, wrong = _wrong_weights(table, name, settings, file)
            refuse(differ, f"bag {name!r} has another number of ids than {settings.weights!r} has weights")
            least = "at least 0 and finite" if settings.pooling == "mean" else "a finite number"
            refuse(wrong, f"column {settings.weights!r} holds a weight that is not {least}")
    if not good.all():
        table = table.filter(pa.array(good))
        labels, dense = labels[good], dense[:, good]
        order = order[good] if order is not None else None
        split = split[good] if split is not None else None
    fields = tuple(
        encode_column(
            plain_or_dictionary(table[name]),
            name,
            settings,
            file,
            seed if settings.hash_rows is None else KEY_SEED,
            plain_or_dictionary(table[settings.weights]) if settings.weights is not None else None,
        )
        for name, settings in layout.categorical.items()
    )
    problems.sort(key=lambda row: row.line)
    numeric = [*layout.dense, *([layout.order] if layout.order else [])]
    kinds: dict[str, NumberKind] = {
        name: "times" if _is_time(table[name].type) else "numbers" for name in numeric
    }
    return Chunk(
        file, labels.astype(np.float32), dense, fields, split, order, kinds, tuple(problems), bytes_read
    )


def _wrong_weights(
    table: pa.Table, name: str, settings: Categorical, file: Path
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    lists = bag_lists(plain_or_dictionary(table[name]), name, settings, file)
    present = lists.flatten().is_valid().to_numpy(zero_copy_only=False).astype(bool)
    assert settings.weights is not None
    try:
        weights = weights_of(
            plain_or_dictionary(table[settings.weights]), settings.weights, settings.separator
        )
    except ValueError as error:
        raise ConfigError(f"{file}: {error}") from None
    return wrong_weights(lengths_of(lists), present, *weights, settings.pooling)


def numbers(
    table: pa.Table, name: str, file: Path, fix: str = "is it categorical?"
) -> npt.NDArray[np.float64]:
    """A column of numbers, truth values, dates or timestamps as float64 (B,), NaN where missing.

    Times are microseconds since 1970, in UTC; what is finer is cut off. Raises ConfigError, which ends with
    the `fix`, for others.
    """
    column = table[name]
    kind = column.type
    if _is_time(kind):
        finer = pa.types.is_timestamp(kind) and kind.unit == "ns"
        try:
            column = column.cast(pa.timestamp("us"), safe=not finer).cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise ConfigError(f"{file}: column {name!r} holds a time that is too far away: {error}") from None
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise ConfigError(f"{file}: column {name!r} holds {kind}, expected numbers; {fix}")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    values = column.cast(pa.float64(), safe=False).to_numpy()
    return np.array(values, dtype=np.float64)


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)  # type: ignore[no-any-return]
