"""Generated click logs: Zipf ids, and a planted teacher that decides which rows are clicked.

Every id has a hidden bias and a hidden vector, drawn by a hash of field and id, so accuracy depends on
the ids themselves, tail included; vectors of different fields interact as in a factorisation machine.
Nothing is kept per id: rows stream in chunks, and the same spec always gives the same file.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from autoembed.data.config import Categorical, DataConfig, RandomSplit, Split
from autoembed.data.keys import mix

Array = npt.NDArray[Any]
CHUNK_ROWS = 1 << 16
BAG_SEPARATOR = "|"
_HIDDEN = 8  # one hash gives 8 signed bytes: a bias and a vector of 7
_BYTE_STD = 73.9
_CALIBRATION_ROWS = 1 << 15

CRITEO_KAGGLE_CARDINALITIES = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
    *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)


@dataclass(frozen=True)
class GeneratedSpec:
    """What to generate. Columns: label, I1, I2, ... (counts), C1, C2, ... (8 hex digits).

    `cardinalities`: ids per field; id of rank r is drawn in proportion to r^-exponent. `bags`: the
    positions of fields that hold 0 to 4 ids. `signal`: standard deviation of the teacher's logit.
    `missing`: share of values left empty.
    """

    rows: int
    cardinalities: tuple[int, ...]
    dense: int = 0
    bags: tuple[int, ...] = ()
    exponent: float = 1.05
    base_rate: float = 0.25
    signal: float = 2.0
    missing: float = 0.02
    seed: int = 0
    format: Literal["criteo", "csv", "parquet"] = "csv"

    @property
    def dense_columns(self) -> tuple[str, ...]:
        return tuple(f"I{number}" for number in range(1, self.dense + 1))

    @property
    def categorical_columns(self) -> tuple[str, ...]:
        return tuple(f"C{number}" for number in range(1, len(self.cardinalities) + 1))


def small(rows: int = 80_000) -> GeneratedSpec:
    """The log of the quickstart: ten fields with a long tail, one of them a bag."""
    return GeneratedSpec(
        rows,
        (3000, 4000, 1500, 800, 300, 100, 40, 12, 5, 600),
        dense=4,
        bags=(9,),
        exponent=0.8,  # flat enough that rare ids matter, and that cutting them costs accuracy
        signal=3.0,
        format="csv",
    )


def criteo_kaggle(rows: int, seed: int = 0) -> GeneratedSpec:
    """13 counts and 26 fields with the cardinalities of the Criteo Kaggle display advertising data."""
    return GeneratedSpec(rows, CRITEO_KAGGLE_CARDINALITIES, dense=13, seed=seed, format="criteo")


def config_of(spec: GeneratedSpec, path: Path) -> DataConfig:
    """How to read the file that `generate(spec, path)` writes; a random tenth each for valid and test."""
    bag = Categorical(bag=True, separator=BAG_SEPARATOR, pooling="mean")
    return DataConfig(
        path=str(path),
        format=spec.format,
        dense=spec.dense_columns,
        categorical={
            name: bag if field in spec.bags else Categorical()
            for field, name in enumerate(spec.categorical_columns)
        },
        split=Split(random=RandomSplit()),
    )


def generate(spec: GeneratedSpec, out: Path) -> Path:
    """Write the log; a whole file appears at once. Returns `out`. Raises ValueError for bad specs."""
    _check(spec)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    teacher = _Teacher(spec)
    tables = (
        _table(spec, teacher, first, min(CHUNK_ROWS, spec.rows - first))
        for first in range(0, spec.rows, CHUNK_ROWS)
    )
    if spec.format == "parquet":
        _write_parquet(tables, spec, partial)
    else:
        _write_text(tables, spec, partial)
    partial.rename(out)
    return out


def _check(spec: GeneratedSpec) -> None:
    if spec.rows < 1 or not spec.cardinalities or min(spec.cardinalities) < 1:
        raise ValueError(f"a generated log needs rows, and fields with at least one id; got {spec}")
    if spec.format == "criteo" and (len(spec.cardinalities), spec.dense, spec.bags) != (26, 13, ()):
        raise ValueError("Criteo's format has 13 counts, 26 fields and no bags; choose csv or parquet")
    if max(spec.cardinalities) > 2**32 or not 0 < spec.base_rate < 1 or not 0 <= spec.missing < 1:
        raise ValueError(f"expected at most 2^32 ids, 0 < base_rate < 1 and 0 <= missing < 1; got {spec}")


@dataclass(frozen=True)
class _Column:
    """Ids of a field as ranks (N,), -1 = missing; lengths (B,) of bags."""

    ranks: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class _Teacher:
    """Logit = intercept + biases (60 % of the variance) + pairs of vectors (30 %) + counts (10 %)."""

    spec: GeneratedSpec

    def logits(self, counts: Array, columns: list[_Column], intercept: float | None = None) -> Array:
        """counts (C, B) with NaN = missing -> logits (B,)."""
        rows = counts.shape[1]
        bias_scales, vector_scales, count_weights = self._scales
        total = np.zeros((rows, _HIDDEN), dtype=np.float32)
        squares = np.zeros(rows, dtype=np.float32)
        for field, column in enumerate(columns):
            hidden = self._hidden(field, column, rows)
            hidden[:, 0] *= bias_scales[field]
            hidden[:, 1:] *= vector_scales[field]
            total += hidden
            squares += np.einsum("bk,bk->b", hidden[:, 1:], hidden[:, 1:])
        pairs = (np.einsum("bk,bk->b", total[:, 1:], total[:, 1:]) - squares) / 2
        logits = total[:, 0] + pairs
        if len(counts):
            logits = logits + count_weights @ (np.nan_to_num(np.log1p(counts), nan=1.0) - 1.0)
        shifted: Array = logits + (self._intercept if intercept is None else intercept)
        return shifted

    @cached_property
    def _scales(self) -> tuple[Array, Array, Array]:
        spec = self.spec
        random = np.random.default_rng((spec.seed, 1))
        variance = spec.signal**2
        biases = random.uniform(0.5, 1.5, len(spec.cardinalities))
        biases *= np.sqrt(0.6 * variance / (biases**2).sum())
        vectors = random.uniform(0.5, 1.5, len(spec.cardinalities))
        squares = vectors**2
        pair_variance = (squares.sum() ** 2 - (squares**2).sum()) / 2 * (_HIDDEN - 1)
        vectors *= (0.3 * variance / max(pair_variance, 1e-9)) ** 0.25 if len(vectors) > 1 else 0.0
        counts = random.normal(size=spec.dense)
        counts *= np.sqrt(0.1 * variance / max((counts**2).sum(), 1e-9))
        return biases.astype(np.float32), vectors.astype(np.float32), counts

    @cached_property
    def _intercept(self) -> float:
        """Meets the base rate on a sample, by bisection."""
        random = np.random.default_rng((self.spec.seed, 2))
        counts, columns = _features(self.spec, _CALIBRATION_ROWS, random)
        logits = self.logits(counts, columns, intercept=0.0)
        low, high = -30.0, 30.0
        for _ in range(50):
            middle = (low + high) / 2
            rate = float((1 / (1 + np.exp(-(logits + middle)))).mean())
            low, high = (middle, high) if rate < self.spec.base_rate else (low, middle)
        return low

    def _hidden(self, field: int, column: _Column, rows: int) -> Array:
        """(B, 8) of unit variance; zero where missing; bags divide the sum by sqrt(length)."""
        start = np.array([self.spec.seed * 1_000_003 + field + 1], dtype=np.uint64) << np.uint64(34)
        hashes = mix(mix(start) + column.ranks.astype(np.uint64))
        hidden = hashes.view(np.int8).reshape(-1, _HIDDEN).astype(np.float32) / np.float32(_BYTE_STD)
        hidden[column.ranks < 0] = 0.0
        if column.lengths is None:
            return hidden
        pooled = np.zeros((rows, _HIDDEN), dtype=np.float32)
        np.add.at(pooled, np.repeat(np.arange(rows), column.lengths), hidden)
        pooled /= np.sqrt(np.maximum(column.lengths, 1))[:, None]
        return pooled


def _features(spec: GeneratedSpec, rows: int, random: np.random.Generator) -> tuple[Array, list[_Column]]:
    """counts (C, B) float64 with NaN = missing, and the columns of ids."""
    counts = np.floor(np.exp(random.normal(1.0, 1.0, (spec.dense, rows))))
    if spec.missing:
        counts[random.random((spec.dense, rows)) < spec.missing] = np.nan
    columns = []
    for field, cardinality in enumerate(spec.cardinalities):
        lengths = random.integers(0, 5, rows) if field in spec.bags else None
        ranks = _zipf(random, rows if lengths is None else int(lengths.sum()), cardinality, spec.exponent)
        if lengths is None and spec.missing:
            ranks[random.random(rows) < spec.missing] = -1
        columns.append(_Column(ranks, lengths))
    return counts, columns


def _zipf(random: np.random.Generator, size: int, cardinality: int, exponent: float) -> Array:
    """Ranks 0 .. cardinality - 1 in proportion to (rank + 1)^-exponent, by the continuous inverse."""
    draws = random.random(size)
    if abs(exponent - 1) < 1e-6:
        ranks = np.exp(draws * np.log(cardinality + 1.0))
    else:
        power = 1 - exponent
        ranks = np.power((np.power(cardinality + 1.0, power) - 1) * draws + 1, 1 / power)
    bounded: Array = np.minimum(ranks.astype(np.int64) - 1, cardinality - 1)
    return bounded


def _table(spec: GeneratedSpec, teacher: _Teacher, first: int, rows: int) -> pa.Table:
    random = np.random.default_rng((spec.seed, 3, first))
    counts, columns = _features(spec, rows, random)
    clicked = random.random(rows) < 1 / (1 + np.exp(-teacher.logits(counts, columns)))
    arrays: dict[str, pa.Array] = {"label": pa.array(clicked.astype(np.int8))}
    for name, values in zip(spec.dense_columns, counts, strict=True):
        missing = np.isnan(values)
        arrays[name] = pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)
    for field, (name, column) in enumerate(zip(spec.categorical_columns, columns, strict=True)):
        text = _hex(column.ranks, field + spec.seed * 64)
        if column.lengths is not None:
            offsets = np.concatenate([[0], np.cumsum(column.lengths)]).astype(np.int32)
            text = pa.ListArray.from_arrays(pa.array(offsets), text)
        arrays[name] = text
    return pa.table(arrays)


def _hex(ranks: Array, salt: int) -> pa.Array:
    """Ranks -> 8 hex digits, one to one; missing -> null. The digits tell nothing about the rank."""
    numbers = ranks.astype(np.uint32) + np.uint32((salt * 0x9E3779B1) & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        numbers = (numbers ^ (numbers >> np.uint32(shift))) * np.uint32(factor)
    numbers ^= numbers >> np.uint32(16)
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    pairs = np.stack([np.repeat(digits, 16), np.tile(digits, 16)], axis=1)  # (256, 2)
    text = pairs[numbers.astype(">u4").view(np.uint8)].reshape(-1)
    offsets = np.arange(0, 8 * len(ranks) + 1, 8, dtype=np.int32)
    missing = ranks < 0
    validity = pa.array(~missing).buffers()[1] if missing.any() else None
    return pa.StringArray.from_buffers(
        len(ranks), pa.py_buffer(offsets), pa.py_buffer(text), validity, int(missing.sum())
    )


def _write_parquet(tables: Iterator[pa.Table], spec: GeneratedSpec, path: Path) -> None:
    writer = None
    for table in tables:
        metadata = {"autoembed": json.dumps(asdict(spec))}
        writer = writer or pq.ParquetWriter(path, table.schema.with_metadata(metadata))
        writer.write_table(table.replace_schema_metadata(metadata))
    if writer is not None:
        writer.close()


def _write_text(tables: Iterator[pa.Table], spec: GeneratedSpec, path: Path) -> None:
    is_criteo = spec.format == "criteo"
    options = pacsv.WriteOptions(
        include_header=False, delimiter="\t" if is_criteo else ",", quoting_style="none"
    )
    with pa.OSFile(str(path), "wb") as file:
        if not is_criteo:
            names = ("label", *spec.dense_columns, *spec.categorical_columns)
            file.write((",".join(names) + "\n").encode())
        for table in tables:
            for field in spec.bags:
                name = spec.categorical_columns[field]
                joined = pc.binary_join(table[name], BAG_SEPARATOR)
                table = table.set_column(table.schema.get_field_index(name), name, joined)
            pacsv.write_csv(table, file, options)
