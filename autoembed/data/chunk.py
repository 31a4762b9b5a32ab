"""A stretch of a raw click log, checked and encoded by itself: what readers hand to `prepare`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autoembed.config import ConfigError
from autoembed.data.config import Categorical, ColumnSplit, DataConfig, Format, LastSplit, Transform
from autoembed.data.keys import Keys, buckets, integer_keys, string_keys
from autoembed.data.vocabulary import Kind, plain_array

FLOAT32_MOST = float(np.finfo(np.float32).max)
SPLITS = ("train", "valid", "test")
IGNORED = np.int8(3)
_NO_SPLIT = np.int8(4)


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: its file, its line (text) or row (Parquet) counted from 1, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(frozen=True)
class Encoded:
    """A categorical column of a chunk: distinct values (V,) without nulls, and their use.

    codes (N,) int32 index `values`, -1 = missing. lengths (B,) int32 for a bag: its ids lie behind one
    another in `codes`, missing elements are dropped; None for single ids, where N = B.
    """

    values: pa.Array
    keys: Keys
    exact: bool
    kind: Kind
    codes: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32] | None


@dataclass(frozen=True)
class Chunk:
    """Rows of one file in order. labels (B,) float32, dense (C, B) float64 with NaN = missing.

    split (B,) int8 where a column says so, order (B,) float64 where a column orders the rows.
    """

    labels: npt.NDArray[np.float32]
    dense: npt.NDArray[np.float64]
    fields: tuple[Encoded, ...]
    split: npt.NDArray[np.int8] | None
    order: npt.NDArray[np.float64] | None
    bad: tuple[BadRow, ...]
    bytes_read: int

    @property
    def rows(self) -> int:
        return len(self.labels)


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
        names = [self.label, *self.dense, *self.categorical, *(name for name in extra if name)]
        return list(dict.fromkeys(names))


def layout_of(config: DataConfig, format: Format) -> Layout:
    """What a configuration reads from files of a format. Raises ConfigError where it reads no field."""
    chosen = config.split.chosen
    by_column = isinstance(chosen, LastSplit) and chosen.by != "order"
    categorical = config.categorical_columns(format)
    if not categorical:
        raise ConfigError("key 'categorical' is missing; name at least one categorical column")
    return Layout(
        config.label,
        config.dense_columns(format),
        categorical,
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

    labels = numbers(table, layout.label, file)
    refuse(~((labels == 0) | (labels == 1)), f"label {layout.label!r} is not 0 or 1")
    dense = np.empty((len(layout.dense), table.num_rows), dtype=np.float64)
    for position, name in enumerate(layout.dense):
        dense[position] = numbers(table, name, file)
        refuse(np.abs(dense[position]) > FLOAT32_MOST, f"dense column {name!r} is infinite or too large")
    order = None
    if layout.order:
        order = numbers(table, layout.order, file)
        refuse(np.isnan(order), f"column {layout.order!r}, which orders the rows, is missing")
    split = None
    if layout.split:
        split = _splits(table, layout.split, file)
        refuse(split == _NO_SPLIT, f"column {layout.split.column!r}, which says the split, is missing")
        good &= split != IGNORED
    if not good.all():
        table = table.filter(pa.array(good))
        labels, dense = labels[good], dense[:, good]
        order = order[good] if order is not None else None
        split = split[good] if split is not None else None
    fields = tuple(
        _encoded(plain_or_dictionary(table[name]), name, settings, file, seed)
        for name, settings in layout.categorical.items()
    )
    problems.sort(key=lambda row: row.line)
    return Chunk(labels.astype(np.float32), dense, fields, split, order, tuple(problems), bytes_read)


def numbers(table: pa.Table, name: str, file: Path) -> npt.NDArray[np.float64]:
    """A numeric, boolean or time column as float64 (B,), NaN where missing."""
    column = table[name]
    kind = column.type
    if pa.types.is_temporal(kind):
        column = column.cast(pa.timestamp("us")).cast(pa.int64())
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise ConfigError(f"{file}: column {name!r} holds {kind}, expected numbers; is it categorical?")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    values = column.cast(pa.float64(), safe=False).to_numpy()
    return np.array(values, dtype=np.float64)


def plain_or_dictionary(column: pa.ChunkedArray) -> pa.Array:
    """One array; text becomes dictionary-encoded, with distinct values and no nulls among them."""
    kind = column.type
    if pa.types.is_dictionary(kind):  # as written by others, values may repeat
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.dictionary_encode()
    if column.num_chunks == 0:
        return pa.array([], column.type)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _splits(table: pa.Table, split: ColumnSplit, file: Path) -> npt.NDArray[np.int8]:
    """The split of every row (B,): 0 train, 1 valid, 2 test, 3 to be left out, 4 missing."""
    lists = (split.train, split.valid, split.test, split.ignore)
    code_of = {str(value): code for code, values in enumerate(lists) for value in values}
    column = plain_or_dictionary(table[split.column])
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = []
    for value in encoded.dictionary.to_pylist():
        if str(value) not in code_of:
            raise ConfigError(
                f"{file}: column {split.column!r} holds {str(value)!r}, which key 'split' lists nowhere; "
                "add it to train, valid, test or ignore"
            )
        codes.append(code_of[str(value)])
    by_index = np.array([*codes, _NO_SPLIT], dtype=np.int8)
    rows: npt.NDArray[np.int8] = by_index[encoded.indices.fill_null(len(codes)).to_numpy()]
    return rows


def _encoded(column: pa.Array, name: str, settings: Categorical, file: Path, seed: int) -> Encoded:
    """Single ids or bags, from plain, dictionary-encoded or list columns."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if not settings.bag:
            raise ConfigError(f"{file}: column {name!r} holds lists; set 'bag: true' for it")
        return _bag(column, name, file, seed)
    if settings.bag:
        if not (pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ConfigError(f"{file}: column {name!r} is a bag, expected lists or text, found {kind}")
        return _bag(_pieces(column, settings.separator), name, file, seed)
    values, codes, id_kind = _distinct(column, name, file, settings.bucketize)
    keys, exact = _keys(values, id_kind, seed)
    return Encoded(values, keys, exact, id_kind, codes, None)


def _bag(lists: pa.Array, name: str, file: Path, seed: int) -> Encoded:
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    values, codes, kind = _distinct(lists.flatten(), name, file, False)
    missing = codes < 0
    if missing.any():
        owners = np.repeat(np.arange(len(lengths)), lengths)
        lengths = lengths - np.bincount(owners[missing], minlength=len(lengths))
        codes = codes[~missing]
    keys, exact = _keys(values, kind, seed)
    return Encoded(values, keys, exact, kind, codes, lengths.astype(np.int32))


def _pieces(column: pa.Array, separator: str) -> pa.Array:
    """Text with separators -> lists of text; empty pieces become null."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    pieces = pc.split_pattern(encoded.dictionary, separator)
    flat = pieces.flatten()
    flat = pc.if_else(pc.equal(flat, ""), pa.scalar(None, flat.type), flat)
    starts = pieces.offsets
    rebuilt = type(pieces).from_arrays(starts, flat) if len(pieces) else pieces
    return rebuilt.take(encoded.indices)


def _distinct(
    column: pa.Array, name: str, file: Path, bucketize: bool
) -> tuple[pa.Array, npt.NDArray[np.int32], Kind]:
    """Distinct non-null values, the code of every row (-1 = missing), and what the values are."""
    id_kind: Kind = "buckets"
    if bucketize:
        column = buckets(_parsed(column, name, file))
    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not bucketize:
        column, id_kind = _as_ids(column, plain, name, file)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return encoded.dictionary, codes, id_kind


def _as_ids(column: pa.Array, kind: pa.DataType, name: str, file: Path) -> tuple[pa.Array, Kind]:
    """The column as int64 or text. Raises ConfigError for what cannot be an id."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column, "strings"
    if pa.types.is_null(kind):
        return column.cast(pa.int64()), "integers"
    try:
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind):
            if pa.types.is_floating(kind):
                column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
            return column.cast(pa.int64()), "integers"
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return column.cast(pa.large_string()), "strings"
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{file}: column {name!r} ({kind}) does not hold ids: {error}; "
            "name it under dense or set 'bucketize: true'"
        ) from None
    raise ConfigError(f"{file}: column {name!r} holds {kind}, expected whole numbers or text as ids")


def _parsed(column: pa.Array, name: str, file: Path) -> pa.Array:
    plain = plain_array(column)
    try:
        return plain.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ConfigError(f"{file}: column {name!r} is to be bucketized but holds no numbers") from None


def _keys(values: pa.Array, kind: Kind, seed: int) -> tuple[Keys, bool]:
    if kind == "strings":
        return string_keys(values, seed)
    return integer_keys(values.to_numpy(zero_copy_only=False)), True
