"""Click logs in Parquet: record batches of the columns that are needed, nothing else is read."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autoembed.config import ConfigError
from autoembed.data.chunk import Chunk, Layout, chunk_of

CHUNK_ROWS = 1 << 17


def parquet_jobs(path: Path, layout: Layout, seed: int) -> Iterator[Callable[[], Chunk]]:
    """A job per record batch, to be run in any thread.

    Raises ConfigError where the file is damaged or a column is missing or there twice.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow, layout)
            total = max(file.metadata.num_rows, 1)
            size = path.stat().st_size
            first = 0
            for batch in file.iter_batches(CHUNK_ROWS, columns=layout.columns, use_threads=False):
                rows = np.arange(first + 1, first + batch.num_rows + 1)
                table = pa.Table.from_batches([batch])
                yield partial(chunk_of, table, layout, path, rows, seed, size * batch.num_rows // total)
                first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {error}") from None


def _check_columns(path: Path, schema: pa.Schema, layout: Layout) -> None:
    missing = [name for name in layout.columns if name not in schema.names]
    if missing:
        raise ConfigError(
            f"{path}: there is no column {missing[0]!r}; the file has {', '.join(schema.names)}"
        )
    twice = [name for name in layout.columns if schema.names.count(name) > 1]
    if twice:
        raise ConfigError(f"{path}: the file has the column {twice[0]!r} twice; rename one")
