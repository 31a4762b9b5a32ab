"""Small click logs for tests, and an encoder that is slow and obvious."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "valid", "test")
# every split needs both labels
ANCHORS = [{"label": label, "split": split} for split in SPLITS for label in (0, 1)]


def write_parquet(path: Path, rows: Sequence[dict[str, Any]], **types: pa.DataType) -> Path:
    """Columns are the keys of the first row; values absent elsewhere are null."""
    columns = {name: [row.get(name) for row in rows] for name in rows[0]}
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path)
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]], separator: str = "|") -> Path:
    """As `write_parquet`; lists are joined, null is empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        for row in rows:
            values = [row.get(name) for name in rows[0]]
            writer.writerow(separator.join(v) if isinstance(v, list) else v for v in values)
    return path


def encode(rows: Sequence[dict[str, Any]], name: str, min_count: int) -> tuple[list[Any], list[int], dict]:
    """-> the row of every example (or the list of rows of a bag), counts by row, and value -> row."""
    ids = [value if isinstance(value, list) else [value] for value in (row.get(name) for row in rows)]
    is_bag = any(isinstance(row.get(name), list) for row in rows)
    if is_bag:
        ids = [[element for element in bag if element is not None] for bag in ids]
    train = Counter(
        value
        for bag, row in zip(ids, rows, strict=True)
        if row["split"] == "train"
        for value in bag
        if value is not None
    )
    kept = [value for value, count in train.items() if count >= min_count]
    kept.sort(key=lambda value: (-train[value], value if isinstance(value, int) else value.encode()))
    row_of = {value: rank for rank, value in enumerate(kept, start=1)}
    encoded = [[row_of.get(value, 0) for value in bag] for bag in ids]
    in_train = [r for bag, row in zip(encoded, rows, strict=True) if row["split"] == "train" for r in bag]
    counts = [in_train.count(0)] + [train[value] for value in kept]
    return (encoded if is_bag else [bag[0] for bag in encoded]), counts, row_of
