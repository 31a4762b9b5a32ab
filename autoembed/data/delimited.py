"""Click logs as delimited text: CSV with or without header, and Criteo's tab-separated files.

A file is cut into blocks of whole lines, so the place of every bad row is known and blocks can be parsed
side by side: every line must be a row. A block is parsed straight into numbers; only where that fails, the
bad rows are looked for.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv

from autoembed.config import ConfigError
from autoembed.data.categorical import plain_or_dictionary
from autoembed.data.chunk import BadRow, Chunk, Layout, chunk_of
from autoembed.data.config import CRITEO_CATEGORICAL, CRITEO_DENSE, CRITEO_LABEL, DataConfig, Format
from autoembed.data.sources import compression_of
from autoembed.data.split import IGNORED, column_codes

BLOCK_BYTES = 32 << 20
_PARSE_BYTES = 1 << 19  # pyarrow parses pieces that stay in the cache 1.5 times as fast (2 cores, x86)
_LONGEST_LINE_BYTES = 1 << 30
_ORDERS = (pa.float64(), *(pa.timestamp(unit, zone) for unit in ("us", "ns") for zone in (None, "UTC")))
_BREAK_IN_QUOTES = (
    "a quoted value holds a line break, or its quote is never closed; write every row on one line, "
    "or the log as Parquet"
)
Lines = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Dialect:
    """How lines are cut into columns; `columns` None = the first line of every file names them."""

    delimiter: str
    quoted: bool
    columns: tuple[str, ...] | None


@dataclass(frozen=True)
class _Block:
    """`lines` whole lines of a file; the first is line `first_line`, counted from 1."""

    text: bytes
    first_line: int
    lines: int
    bytes_read: int


def dialect_of(config: DataConfig, format: Format) -> Dialect:
    """Criteo's fixed dialect, or what the configuration says of its CSV. Raises ConfigError."""
    if format == "criteo":
        return Dialect("\t", False, (CRITEO_LABEL, *CRITEO_DENSE, *CRITEO_CATEGORICAL))
    if not config.header and config.columns is None:
        raise ConfigError("with 'header: false' the key 'columns' must name all columns in order")
    return Dialect(config.delimiter, True, None if config.header else config.columns)


def delimited_jobs(
    path: Path, layout: Layout, dialect: Dialect, seed: int, block_bytes: int | None = None
) -> Iterator[Callable[[], Chunk]]:
    """A job per block, to be run in any thread. Raises ConfigError where the file is damaged or empty of
    a column that is needed."""
    columns, checked = dialect.columns, False
    order_type: pa.DataType | None = None
    for block in _blocks(path, block_bytes or BLOCK_BYTES):
        if columns is None:
            block, columns = _take_header(block, path, dialect)
        if not checked:
            _check_columns(path, columns, layout)
            checked = True
        if not block.text:
            continue
        if order_type is None and layout.order is not None:
            order_type = _order_type(block, columns, layout.order, dialect)
        yield partial(_parse, block, path, columns, layout, dialect, order_type or pa.float64(), seed)


def _blocks(path: Path, block_bytes: int) -> Iterator[_Block]:
    """The file in blocks that end at line ends; empty lines at the end of the file are dropped."""
    compression = compression_of(path)
    rest, line, reported = b"", 1, 0
    try:
        with pa.OSFile(str(path)) as raw:
            stream = pa.CompressedInputStream(raw, compression) if compression else raw
            while piece := stream.read(block_bytes):
                # empty lines wait for what follows them: at the end of a file they mean nothing
                lines_end = piece.rfind(b"\n") + 1
                while lines_end and piece[lines_end - 1] in b"\r\n":
                    lines_end -= 1
                end = piece.find(b"\n", lines_end) + 1 if lines_end else 0
                if end == 0:
                    rest += piece
                    if len(rest) > _LONGEST_LINE_BYTES:
                        raise ConfigError(f"{path}:{line}: no line break in {_LONGEST_LINE_BYTES} bytes")
                    continue
                text = b"".join((rest, memoryview(piece)[:end]))
                rest = piece[end:]
                position = raw.tell()
                lines = text.count(b"\n")
                yield _Block(text, line, lines, position - reported)
                reported = position
                line += lines
    except OSError as error:
        kind = f"the {compression} stream is damaged or cut off" if compression else "cannot be read"
        raise ConfigError(f"{path}: {kind} ({error})") from None
    rest = rest.rstrip(b"\r\n")
    if rest:
        yield _Block(rest, line, rest.count(b"\n") + 1, path.stat().st_size - reported)


def _take_header(block: _Block, path: Path, dialect: Dialect) -> tuple[_Block, tuple[str, ...]]:
    end = block.text.find(b"\n") + 1 or len(block.text)
    if _ends_inside_quotes(block.text[:end], dialect):
        raise ConfigError(f"{path}:1: {_BREAK_IN_QUOTES}")
    try:
        header = block.text[:end].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}:1: the header is not UTF-8 text: {error}") from None
    header = header.rstrip("\r\n")
    if "\r" in header:
        raise ConfigError(f"{path}:1: a carriage return stands inside the header; end lines with line feeds")
    try:
        columns = tuple(next(csv.reader([header], delimiter=dialect.delimiter), []))
    except csv.Error as error:
        raise ConfigError(f"{path}:1: the header cannot be read: {error}") from None
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise ConfigError(f"{path}:1: the header names the column {twice[0]!r} twice; rename one")
    return _Block(block.text[end:], 2, block.lines - 1, block.bytes_read), columns


def _check_columns(path: Path, columns: tuple[str, ...], layout: Layout) -> None:
    missing = [name for name in layout.columns if name not in columns]
    if missing:
        raise ConfigError(f"{path}: there is no column {missing[0]!r}; the file has {', '.join(columns)}")


def _order_type(block: _Block, columns: tuple[str, ...], name: str, dialect: Dialect) -> pa.DataType | None:
    """What orders the rows: numbers, or ISO times, judged by the first line that can be read as either."""
    end = block.text.find(b"\n") + 1
    for text in (block.text[:end], block.text[end:]):
        for word in _column(text, columns, name, dialect).unique():
            for kind in _ORDERS:
                value = _cast(word.as_py(), kind)
                # nan and inf are numbers too, but often stand for a time that is missing
                if value is not None and np.isfinite(value):
                    return kind
    return None


def _column(text: bytes, columns: tuple[str, ...], name: str, dialect: Dialect) -> pa.ChunkedArray:
    """One column of the lines that have all of them, of a `_parsable` text."""
    if not text:
        return pa.chunked_array([], pa.string())
    text = _parsable(text)
    return pacsv.read_csv(
        pa.py_buffer(text),
        pacsv.ReadOptions(column_names=list(columns), use_threads=False, block_size=_whole(text)),
        pacsv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char='"' if dialect.quoted else False,
            invalid_row_handler=lambda row: "skip",
        ),
        pacsv.ConvertOptions(column_types={name: pa.string()}, include_columns=[name]),
    )[name]


def _parse(
    block: _Block,
    path: Path,
    columns: tuple[str, ...],
    layout: Layout,
    dialect: Dialect,
    order_type: pa.DataType,
    seed: int,
) -> Chunk:
    lines = np.arange(block.first_line, block.first_line + block.lines)
    numeric = {name: pa.float64() for name in (layout.label, *layout.dense)}
    numeric |= {name: pa.float64() for name, settings in layout.categorical.items() if settings.bucketize}
    if layout.order is not None:
        numeric[layout.order] = order_type
    bad: list[BadRow] = []
    try:
        table, kept, bad = _table(block.text, path, columns, layout, dialect, numeric, lines)
    except pa.ArrowInvalid:
        text = _parsable(block.text)
        table, kept, bad = _table(text, path, columns, layout, dialect, {}, lines)
        values = partial(_with_values, numeric=numeric, path=path, latin=text is not block.text)
        if layout.split:
            table, kept, unreadable = values(table, kept, [layout.split.column])
            bad += unreadable
            used = column_codes(table[layout.split.column], layout.split, path) != IGNORED
            table, kept = table.filter(pa.array(used)), kept[used]
        rest = [name for name in layout.columns if not layout.split or name != layout.split.column]
        table, kept, unreadable = values(table, kept, rest)
        bad += unreadable
    return chunk_of(table, layout, path, kept, seed, block.bytes_read, bad)


def _table(
    text: bytes,
    path: Path,
    columns: tuple[str, ...],
    layout: Layout,
    dialect: Dialect,
    numeric: dict[str, pa.DataType],
    lines: Lines,
) -> tuple[pa.Table, Lines, list[BadRow]]:
    """Parse lines; what is not `numeric` stays text with empty = null. Raises ConfigError where a line is no
    row of its own."""
    wrong: list[tuple[int, int]] = []

    def skip(row: pacsv.InvalidRow) -> str:
        wrong.append((row.number - 1, row.actual_columns))
        return "skip"

    # where numbers have failed, a line longer than a piece may be the reason
    parse_bytes = _PARSE_BYTES if numeric else _whole(text)
    table = pacsv.read_csv(
        pa.py_buffer(text),
        pacsv.ReadOptions(column_names=list(columns), use_threads=False, block_size=parse_bytes),
        pacsv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char='"' if dialect.quoted else False,
            ignore_empty_lines=False,
            # pieces, too, end where rows do: cut inside quotes, halves of a value would pass for rows
            newlines_in_values=dialect.quoted,
            invalid_row_handler=skip,
        ),
        pacsv.ConvertOptions(
            column_types={name: numeric.get(name, pa.string()) for name in layout.columns},
            include_columns=layout.columns,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    last = text.rfind(b"\n", 0, len(text) - 1) + 1
    if table.num_rows + len(wrong) != len(lines) or _ends_inside_quotes(text[last:], dialect):
        raise _broken_line(text, path, dialect, lines)
    bad = [
        BadRow(path.name, int(lines[row]), f"expected {len(columns)} columns, found {found}")
        for row, found in wrong
    ]
    kept = np.delete(lines, [row for row, _ in wrong]) if wrong else lines
    return table, kept, bad


def _whole(text: bytes) -> int:
    """The size of a piece of parsing that holds all of a text, however long its lines are."""
    return min(len(text) + 1, 2**31 - 1)


def _ends_inside_quotes(line: bytes, dialect: Dialect) -> bool:
    """Whether a line that starts a row leaves a quote open."""
    return dialect.quoted and b'"' in line and _count_rows(line.rstrip(b"\r\n") + b"\n0\n", dialect) == 1


def _count_rows(text: bytes, dialect: Dialect) -> int:
    """Rows of lines, however many columns they have."""
    text = _parsable(text)
    skipped: list[int] = []

    def skip(row: pacsv.InvalidRow) -> str:
        skipped.append(row.actual_columns)
        return "skip"

    table = pacsv.read_csv(
        pa.py_buffer(text),
        pacsv.ReadOptions(column_names=["all"], use_threads=False, block_size=_whole(text)),
        pacsv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char='"' if dialect.quoted else False,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        pacsv.ConvertOptions(column_types={"all": pa.binary()}),
    )
    return int(table.num_rows) + len(skipped)


def _broken_line(text: bytes, path: Path, dialect: Dialect, lines: Lines) -> ConfigError:
    """Names the first line that is no row of its own, found by halving."""
    ends = np.append(np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1, len(text))
    low, high = 0, len(lines)  # the first `low` lines are rows
    while low < high:
        middle = (low + high + 1) // 2
        first = text[: ends[middle - 1]]
        last = first[ends[middle - 2] if middle > 1 else 0 :]
        if _count_rows(first, dialect) == middle and not _ends_inside_quotes(last, dialect):
            low = middle
        else:
            high = middle - 1
    line = int(lines[low])
    start = int(ends[low - 1]) if low else 0
    if _ends_inside_quotes(text[start : ends[low]], dialect):
        return ConfigError(f"{path}:{line}: {_BREAK_IN_QUOTES}")
    return ConfigError(f"{path}:{line}: a carriage return stands inside the line; remove it")


def _parsable(text: bytes) -> bytes:
    """The text itself where it is UTF-8, else UTF-8 of one character a byte: pyarrow tells of no wrong row
    that is not UTF-8, in whatever column."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode()
    return text


def _with_values(
    table: pa.Table,
    lines: Lines,
    names: list[str],
    numeric: dict[str, pa.DataType],
    path: Path,
    latin: bool,
) -> tuple[pa.Table, Lines, list[BadRow]]:
    """Turn columns of text, `latin` where a byte became a character, into what they hold and leave out rows
    where that fails. Columns that are not used may hold any bytes, as in the fast path."""
    good = np.ones(table.num_rows, dtype=bool)
    bad = []
    for name in names:
        kind = numeric.get(name, pa.string())
        if kind == pa.string() and not latin:
            continue
        if pa.types.is_timestamp(kind):
            kind = pa.timestamp("us", kind.tz)  # holds all years; nanoseconds are cut off
        encoded = plain_or_dictionary(table[name].dictionary_encode())
        read = [_value(word, name, kind, latin) for word in encoded.dictionary.to_pylist()]
        wrong = np.array([bool(reason) for _, reason in read] + [False])
        codes = encoded.indices.fill_null(len(read)).to_numpy()
        for row in np.flatnonzero(wrong[codes] & good):
            bad.append(BadRow(path.name, int(lines[row]), read[codes[row]][1]))
        good &= ~wrong[codes]
        column = pa.array([*(value for value, _ in read), None], kind).take(pa.array(codes))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table.filter(pa.array(good)), lines[good], bad


def _value(word: str, name: str, kind: pa.DataType, latin: bool) -> tuple[float | int | str | None, str]:
    """What a word means as a number, time or text, or why it is none."""
    try:
        text = word.encode("latin-1").decode() if latin else word
    except UnicodeDecodeError:
        return None, f"column {name!r} is not UTF-8 text"
    if kind == pa.string():
        return text, ""
    value = _cast(text, kind)
    if value is None and pa.types.is_timestamp(kind):
        value = _cast(text, pa.timestamp("ns", kind.tz), kind)
    expected = "a number" if kind == pa.float64() else "an ISO time"
    return value, "" if value is not None else f"column {name!r} holds {text!r}, expected {expected}"


def _cast(word: str, *kinds: pa.DataType) -> float | int | None:
    """What the fast path would read, cast on from type to type, of a time its count; or None."""
    scalar = pa.scalar(word.strip(" \t"))
    try:
        for kind in kinds:
            scalar = scalar.cast(kind, safe=False)
    except (pa.ArrowInvalid, ValueError):
        return None
    return scalar.value if pa.types.is_timestamp(scalar.type) else scalar.as_py()  # type: ignore[no-any-return]
