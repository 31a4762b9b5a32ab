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

BLOCK_BYTES = 32 << 20
_PARSE_BYTES = 1 << 19  # pyarrow parses pieces that stay in the cache 1.5 times as fast (2 cores, x86)
_LONGEST_LINE_BYTES = 1 << 30
_TIMES = (pa.timestamp("us"), pa.timestamp("us", "UTC"))
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
    columns = dialect.columns
    order_type: pa.DataType | None = None
    for block in _blocks(path, block_bytes or BLOCK_BYTES):
        if columns is None:
            block, columns = _take_header(block, path, dialect)
        if block.first_line == 1 or order_type is None:
            _check_columns(path, columns, layout)
        if not block.text:
            continue
        order_type = order_type or _order_type(block, columns, layout, dialect)
        yield partial(_parse, block, path, columns, layout, dialect, order_type, seed)


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
    columns = tuple(next(csv.reader([header.rstrip("\r\n")], delimiter=dialect.delimiter), []))
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise ConfigError(f"{path}:1: the header names the column {twice[0]!r} twice; rename one")
    return _Block(block.text[end:], 2, block.lines - 1, block.bytes_read), columns


def _check_columns(path: Path, columns: tuple[str, ...], layout: Layout) -> None:
    missing = [name for name in layout.columns if name not in columns]
    if missing:
        raise ConfigError(f"{path}: there is no column {missing[0]!r}; the file has {', '.join(columns)}")


def _order_type(block: _Block, columns: tuple[str, ...], layout: Layout, dialect: Dialect) -> pa.DataType:
    """What orders the rows: numbers, or ISO times, judged by the first line."""
    if layout.order is None:
        return pa.float64()
    line = block.text[: block.text.find(b"\n")].decode("utf-8", errors="replace").rstrip("\r")
    values = next(csv.reader([line], delimiter=dialect.delimiter), [])
    place = columns.index(layout.order)
    for kind in (pa.float64(), *_TIMES):
        if len(values) == len(columns) and _cast(values[place], kind) is not None:
            return kind
    return pa.float64()


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
        text, lines, bad = _decodable(block.text, lines, path)
        table, kept, more = _table(text, path, columns, layout, dialect, {}, lines)
        table, kept, unreadable = _with_numbers(table, kept, numeric, path)
        bad = [*bad, *more, *unreadable]
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
    if not text:
        nothing = {name: pa.array([], numeric.get(name, pa.string())) for name in layout.columns}
        return pa.table(nothing), lines, []
    wrong: list[tuple[int, int]] = []

    def skip(row: pacsv.InvalidRow) -> str:
        wrong.append((row.number - 1, row.actual_columns))
        return "skip"

    # where numbers have failed, a line longer than a piece may be the reason
    parse_bytes = _PARSE_BYTES if numeric else min(len(text) + 1, 2**31 - 1)
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


def _ends_inside_quotes(line: bytes, dialect: Dialect) -> bool:
    """Whether a line that starts a row leaves a quote open."""
    return dialect.quoted and b'"' in line and _count_rows(line.rstrip(b"\r\n") + b"\n0\n", dialect) == 1


def _count_rows(text: bytes, dialect: Dialect) -> int:
    """Rows of lines, however many columns they have."""
    skipped: list[int] = []

    def skip(row: pacsv.InvalidRow) -> str:
        skipped.append(row.actual_columns)
        return "skip"

    table = pacsv.read_csv(
        pa.py_buffer(text),
        pacsv.ReadOptions(column_names=["all"], use_threads=False, block_size=min(len(text) + 1, 2**31 - 1)),
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


def _decodable(text: bytes, lines: Lines, path: Path) -> tuple[bytes, Lines, list[BadRow]]:
    """Leave out the lines that are not UTF-8."""
    try:
        text.decode()
        return text, lines, []
    except UnicodeDecodeError:
        pass
    good, kept, bad = [], [], []
    for line, content in zip(lines, text.split(b"\n"), strict=False):
        try:
            content.decode()
            good.append(content)
            kept.append(line)
        except UnicodeDecodeError:
            bad.append(BadRow(path.name, int(line), "the line is not UTF-8 text"))
    return b"\n".join(good), np.array(kept, dtype=np.int64), bad


def _with_numbers(
    table: pa.Table, lines: Lines, numeric: dict[str, pa.DataType], path: Path
) -> tuple[pa.Table, Lines, list[BadRow]]:
    """Turn text columns into numbers and leave out the rows where that fails."""
    good = np.ones(table.num_rows, dtype=bool)
    bad = []
    for name, kind in numeric.items():
        encoded = plain_or_dictionary(table[name].dictionary_encode())
        words = encoded.dictionary.to_pylist()
        values = [_cast(word, kind) for word in words]
        readable = np.array([value is not None for value in values] + [True])
        codes = encoded.indices.fill_null(len(words)).to_numpy()
        for row in np.flatnonzero(~readable[codes] & good):
            reason = f"column {name!r} holds {words[codes[row]]!r}, expected " + (
                "a number" if kind == pa.float64() else "an ISO time"
            )
            bad.append(BadRow(path.name, int(lines[row]), reason))
        good &= readable[codes]
        column = pa.array([*values, None], kind).take(pa.array(codes))
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table.filter(pa.array(good)), lines[good], bad


def _cast(word: str, kind: pa.DataType) -> object | None:
    """The value that the fast path would read, or None."""
    try:
        return pa.scalar(word.strip(" \t")).cast(kind).as_py()  # type: ignore[no-any-return]
    except (pa.ArrowInvalid, ValueError):
        return None
