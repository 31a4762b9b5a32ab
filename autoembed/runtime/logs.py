"""Batches of a raw click log, read as `prepare` reads it, with an exported model's own vocabulary."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from autoembed.config import ConfigError
from autoembed.data.batch import Bag, Batch
from autoembed.data.categorical import Encoded
from autoembed.data.chunk import SPLITS, Chunk, Kinds, Layout, layout_of
from autoembed.data.config import DataConfig, LastSplit, RandomSplit, check
from autoembed.data.delimited import delimited_jobs, dialect_of
from autoembed.data.parquet import parquet_jobs
from autoembed.data.sources import find_files
from autoembed.data.split import random_codes
from autoembed.data.vocabulary import RepeatedIdError
from autoembed.runtime.encode import RawDense, RawField, transformed
from autoembed.runtime.manifest import ArtifactError


def log_batches(
    config: DataConfig, fields: Sequence[RawField], dense: Sequence[RawDense], split: str | None = None
) -> Iterator[Batch]:
    """Batches of the rows of a log, in order; of one split, or of all rows without `split`.

    Raises ConfigError where the log cannot be read, has other columns than the model, or too many bad rows,
    and where its split, by a last share, is only known once the whole log has been read; ArtifactError where
    a vocabulary holds an id twice.
    """
    wanted = _split_code(config, split)
    readers = [_Reader(field) for field in fields]
    rows = bad = 0
    layout, jobs = _jobs(config, fields, dense)
    kinds = Kinds()
    for job in jobs:
        chunk = job()
        kinds.check(chunk, layout)
        chosen = np.ones(chunk.rows, dtype=bool)
        if wanted is not None:
            chosen = _codes(config, chunk, rows) == wanted
        rows += chunk.rows
        bad += len(chunk.bad)
        if chosen.any():
            yield _batch(chunk, readers, dense, chosen)
    if bad > config.max_bad_share * (rows + bad):
        raise ConfigError(
            f"{bad} of {rows + bad} rows are bad, allowed is a share of {config.max_bad_share}; "
            "repair them or raise 'max_bad_share'"
        )


def _split_code(config: DataConfig, split: str | None) -> int | None:
    if split is None:
        return None
    if split not in SPLITS:
        raise ConfigError(f"no split {split!r}; splits are {', '.join(SPLITS)}")
    if isinstance(config.split.chosen, LastSplit):
        raise ConfigError(
            f"the {split} rows of a split by last share are known only when the whole log is; "
            "prepare the log first, or evaluate all of its rows (--split all, or no split in Python)"
        )
    return SPLITS.index(split)


def _codes(config: DataConfig, chunk: Chunk, first_row: int) -> npt.NDArray[np.int8]:
    chosen = config.split.chosen
    if isinstance(chosen, RandomSplit):
        return random_codes(chosen, first_row, chunk.rows)
    assert chunk.split is not None
    return chunk.split


def _jobs(
    config: DataConfig, fields: Sequence[RawField], dense: Sequence[RawDense]
) -> tuple[Layout, Iterator[Callable[[], Chunk]]]:
    check(config)
    files, format = find_files(config)
    layout = layout_of(config, format)
    described = [(name, settings.bag, settings.weights) for name, settings in layout.categorical.items()]
    expected = [(field.name, field.bag, field.weights) for field in fields]
    if described != expected or list(layout.dense) != [column.name for column in dense]:
        raise ConfigError(
            f"the model reads the fields {[name for name, *_ in expected]} and the dense columns "
            f"{[column.name for column in dense]}, the log is described with "
            f"{[name for name, *_ in described]} and {list(layout.dense)}; describe it as in training"
        )
    for field in fields:
        in_buckets = field.vocabulary.kind == "buckets"
        if in_buckets != layout.categorical[field.name].bucketize:
            raise ConfigError(
                f"the model was trained on {'buckets of' if in_buckets else ''} the numbers of {field.name!r}"
                f"{'' if in_buckets else ' as they are'}; "
                f"{'add' if in_buckets else 'remove'} 'bucketize: true' in its description"
            )
    if format == "parquet":
        return layout, chain.from_iterable(parquet_jobs(path, layout, seed=0) for path in files)
    dialect = dialect_of(config, format)
    return layout, chain.from_iterable(delimited_jobs(path, layout, dialect, seed=0) for path in files)


class _Reader:
    """Encoded values of a chunk -> rows of a field."""

    def __init__(self, field: RawField) -> None:
        self.field = field
        kind = field.vocabulary.kind
        # values of a chunk are bucketized already
        self.vocabulary = replace(field.vocabulary, kind="integers" if kind == "buckets" else kind)

    def rows(self, encoded: Encoded) -> npt.NDArray[np.int64]:
        if len(encoded.values) == 0:
            return np.zeros(len(encoded.codes), dtype=np.int64)
        try:
            values = encoded.values
            if encoded.kind == "strings" and self.vocabulary.kind == "integers":
                values = values.cast(pa.int64())  # trained on a typed file, served from text
            rows = self.vocabulary.lookup(values)
        except (TypeError, pa.ArrowInvalid) as error:
            raise ConfigError(f"column {self.field.name!r}: {error}") from None
        except RepeatedIdError as error:
            raise ArtifactError(f"field {self.field.name!r}: {error}; export the model again") from None
        return np.append(rows, 0)[encoded.codes]  # code -1 picks the last


def _batch(
    chunk: Chunk, readers: Sequence[_Reader], dense: Sequence[RawDense], chosen: npt.NDArray[np.bool_]
) -> Batch:
    ids = np.zeros((int(chosen.sum()), len(readers)), dtype=np.int64)
    bags: dict[int, Bag] = {}
    for position, (reader, encoded) in enumerate(zip(readers, chunk.fields, strict=True)):
        rows = reader.rows(encoded)
        if encoded.lengths is None:
            ids[:, position] = rows[chosen]
            continue
        values = torch.from_numpy(rows[np.repeat(chosen, encoded.lengths)])
        ends = np.cumsum(encoded.lengths[chosen], dtype=np.int64)
        offsets = torch.from_numpy(np.concatenate([[0], ends]))
        weights = None
        if encoded.weights is not None:
            weights = torch.from_numpy(encoded.weights[np.repeat(chosen, encoded.lengths)])
        bags[position] = Bag(values, offsets, reader.field.pooling, weights)
    matrix = np.zeros((len(ids), len(dense)), dtype=np.float32)
    for position, (column, values) in enumerate(zip(dense, chunk.dense, strict=True)):
        matrix[:, position] = transformed(column, values[chosen])
    labels = torch.from_numpy(chunk.labels[chosen])
    return Batch(labels, torch.from_numpy(matrix), torch.from_numpy(ids), bags)
