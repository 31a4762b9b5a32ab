"""Click logs in Parquet: record batches of the columns that are needed, nothing else is read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from autoembed.config import ConfigError
from autoembed.data.chunk import Chunk, Layout, chunk_of

_CHUNK_ROWS = 1 << 17


def read_parquet(path: Path, layout: Layout, seed: int) -> Iterator[Chunk]:
    """Chunks of one file. Raises ConfigError where it is damaged or a column is missing."""
    try:
        with pq.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow, layout)
            total = file.metadata.num_rows
            first = 0
            size = path.stat().st_size
            for batch in file.iter_batches(_CHUNK_ROWS, columns=layout.columns, use_threads=False):
                lines = np.arange(first + 1, first + batch.num_rows + 1)
                bytes_read = size * batch.num_rows // max(total, 1)
                yield chunk_of(pa.Table.from_batches([batch]), layout, path, lines, seed, bytes_read)
                first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as Parquet: {error}") from None


def _check_columns(path: Path, schema: pa.Schema, layout: Layout) -> None:
    missing = [name for name in layout.columns if name not in schema.names]
    if missing:
        raise ConfigError(
            f"{path}: there is no column {missing[0]!r}; the file has {', '.join(schema.names)}"
        )
