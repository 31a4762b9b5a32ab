"""A prepared folder, opened: fields, counts, vocabularies, and batches of its splits."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from autoembed.config import ConfigError
from autoembed.data.batch import Batch
from autoembed.data.chunk import SPLITS
from autoembed.data.columns import file_checksum
from autoembed.data.hashed_ids import FieldIds, HashedIds
from autoembed.data.manifest import MANIFEST, read_manifest
from autoembed.data.row_order import RowOrder
from autoembed.data.rows import BagRows, Rows, pooled_batches, whole_batches
from autoembed.data.vocabulary import Kind, Vocabulary

Array = npt.NDArray[Any]
MEMORY_LIMIT_BYTES = 2 << 30
_FILL_ROWS = 1 << 11


@dataclass(frozen=True)
class Field:
    """A field as the models see it: `rows` with row 0 out of vocabulary; `pooling` of bags, and
    the column of their weights. `hash_rows`: rows that ids are hashed to, None with a vocabulary."""

    name: str
    rows: int
    bag: bool
    pooling: str
    weights: str | None = None
    hash_rows: int | None = None


class PreparedData:
    """What `prepare` wrote. Splits are `train`, `valid`, `test`; row ids are frequency ranks of train,
    in fields without a vocabulary a hash of the value. Those of `reordered` data stand for other ids.

    A split whose arrays take at most `memory_limit_bytes` is loaded once; a larger one is read from
    memory maps.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], memory_limit_bytes: int) -> None:
        self.path = path
        self.manifest = manifest
        self.memory_limit_bytes = memory_limit_bytes
        self.fingerprint: str = manifest["fingerprint"]
        self.fields = tuple(
            Field(
                *(entry["name"], entry["rows"], entry["bag"], entry["pooling"]),
                *(entry.get("weights"), entry.get("hash_rows")),
            )
            for entry in manifest["fields"]
        )
        self.dense: tuple[str, ...] = tuple(entry["name"] for entry in manifest["dense"])
        self._loaded: dict[str, Rows] = {}
        self._train_labels: npt.NDArray[np.float32] | None = None
        self.order: RowOrder | None = None

    def rows(self, split: str) -> int:
        """Examples of a split."""
        return int(self._split(split)["rows"])

    def positives(self, split: str) -> int:
        """Examples of a split whose label is 1."""
        return int(self._split(split)["positives"])

    def labels(self, split: str) -> npt.NDArray[np.float32]:
        """Labels (rows,) float32."""
        self._split(split)
        labels: npt.NDArray[np.float32] = np.load(self.path / split / "label.npy")
        return labels

    def counts(self, field: int) -> npt.NDArray[np.int64]:
        """Look-ups in train by row (R,): row 0 is out of vocabulary, counts[1:] never increase unless the
        field has no vocabulary, or the data was reordered. There may be many more rows than ids in the first
        case, so they are mapped, not loaded."""
        mode: Literal["r"] | None = None if self.fields[field].hash_rows is None else "r"
        path = self.path / "counts" / f"{_stem(field)}.npy"
        counts: npt.NDArray[np.int64] = np.load(path, mmap_mode=mode)
        return counts if self.order is None else counts[self.order.rows[field]]

    def vocabulary(self, field: int) -> FieldIds:
        """The ids of a field, or how they are hashed."""
        kind: Kind = self.manifest["fields"][field]["kind"]
        hash_rows = self.fields[field].hash_rows
        if hash_rows is not None:
            return HashedIds(kind, hash_rows)
        names = ("offsets", "bytes") if kind == "strings" else (kind,)
        folder = self.path / "vocabulary"
        found = Vocabulary.from_tensors({n: np.load(folder / f"{_stem(field)}.{n}.npy") for n in names})
        return found if self.order is None else found.reordered(self.order.rows[field])

    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]:
        """Batches of a split, the last may be shorter; without a seed in the order of the log.

        Shuffled, every row comes exactly once, in an order that depends on the seed alone; where the
        split is not in memory rows move within pools of blocks (rows.py).
        """
        if batch_size < 1:
            raise ValueError(f"a batch holds at least one row, got a batch size of {batch_size}")
        if self.split_bytes(split) <= self.memory_limit_bytes:
            batches = whole_batches(self._load(split), batch_size, shuffle_seed)
        else:
            columns = self._columns(split, mapped=True)
            batches = pooled_batches(columns.read, self.rows(split), batch_size, shuffle_seed)
        return batches if self.order is None else map(self.order.places.batch, batches)

    def relabelled(self, labels: npt.NDArray[np.float32]) -> "PreparedData":
        """The same data, but batches of `train` carry these labels (rows,), which may be soft.

        Rows and labels move together, so that shuffled batches stay aligned. `labels` and `positives`
        still tell what the log says. Raises ValueError where there is not one label per row.
        """
        if labels.shape != (self.rows("train"),):
            raise ValueError(
                f"expected {self.rows('train')} labels, one per row of train, got {labels.shape}"
            )
        other = PreparedData(self.path, self.manifest, self.memory_limit_bytes)
        other.order, other.fingerprint = self.order, self.fingerprint
        other._train_labels = np.ascontiguousarray(labels, dtype=np.float32)
        other._loaded = {split: rows for split, rows in self._loaded.items() if split != "train"}
        if "train" in self._loaded:  # the large columns are shared, not read again
            loaded = self._loaded["train"]
            other._loaded["train"] = replace(loaded, labels=torch.from_numpy(other._train_labels))
        return other

    def reordered(self, order: RowOrder) -> "PreparedData":
        """The same data with each field's rows in another order, and a fingerprint of its own.

        Raises ValueError for data that was reordered, and where the order is one of other rows, or moves
        those of a field without a vocabulary.
        """
        sizes = [len(rows) for rows in order.rows]
        if self.order is not None or sizes != [field.rows for field in self.fields]:
            raise ValueError(f"{self.path}: the order is one of other rows, or the data was reordered before")
        for field, rows in zip(self.fields, order.rows, strict=True):
            if field.hash_rows is not None and (np.diff(rows) != 1).any():
                raise ValueError(f"field {field.name!r} has no vocabulary: its rows cannot be moved")
        other = PreparedData(self.path, self.manifest, self.memory_limit_bytes)
        other.order, other._train_labels, other._loaded = order, self._train_labels, self._loaded
        digest = sha256(self.fingerprint.encode())
        for rows in order.rows:
            digest.update(rows.astype("<i4").tobytes())
        other.fingerprint = digest.hexdigest()
        return other

    @property
    def prepared_fingerprint(self) -> str:
        """That of the data in the order of frequency."""
        return str(self.manifest["fingerprint"])

    def split_bytes(self, split: str) -> int:
        """Bytes of a split's arrays."""
        self._split(split)
        return sum(
            facts["size"] for name, facts in self.manifest["files"].items() if name.startswith(f"{split}/")
        )

    def _split(self, split: str) -> dict[str, Any]:
        if split not in self.manifest["splits"]:
            raise ValueError(f"no split {split!r}; splits are {', '.join(self.manifest['splits'])}")
        facts: dict[str, Any] = self.manifest["splits"][split]
        return facts

    def _load(self, split: str) -> Rows:
        if split not in self._loaded:
            self._loaded[split] = self._columns(split, mapped=False).read([(0, self.rows(split))])
        return self._loaded[split]

    def _columns(self, split: str, mapped: bool) -> "_Columns":
        def load(name: str) -> Array:
            array: Array = np.load(self.path / split / name, mmap_mode="r" if mapped else None)
            return array

        singles = {f: load(f"{_stem(f)}.npy") for f, field in enumerate(self.fields) if not field.bag}
        bags = {
            f: _BagColumns(
                load(f"{_stem(f)}.values.npy"),
                load(f"{_stem(f)}.offsets.npy"),
                field.pooling,
                load(f"{_stem(f)}.weights.npy") if field.weights is not None else None,
            )
            for f, field in enumerate(self.fields)
            if field.bag
        }
        labels = self._train_labels if split == "train" else None
        return _Columns(load("label.npy") if labels is None else labels, load("dense.npy"), singles, bags)


@dataclass(frozen=True)
class _BagColumns:
    """As `BagRows`, of a whole split."""

    values: Array
    offsets: Array
    pooling: str
    weights: Array | None


@dataclass(frozen=True)
class _Columns:
    """The arrays of a split, in memory or mapped."""

    labels: Array
    dense: Array
    singles: dict[int, Array]
    bags: dict[int, _BagColumns]

    def read(self, stretches: list[tuple[int, int]]) -> Rows:
        """The rows of stretches [start, stop), one after another, as tensors."""
        total = sum(stop - start for start, stop in stretches)
        ids = np.zeros((total, len(self.singles) + len(self.bags)), dtype=np.int32)
        _fill_columns(ids, self.singles, stretches)
        bags = {field: _bag_rows(bag, stretches) for field, bag in self.bags.items()}
        return Rows(
            torch.from_numpy(_joined(self.labels, stretches)),
            torch.from_numpy(_joined(self.dense, stretches)),
            torch.from_numpy(ids),
            bags,
        )


def is_prepared(path: Path) -> bool:
    """Whether this is a folder of prepared data, if a damaged one. Exported models have a manifest, too."""
    return (path / MANIFEST).is_file() and (path / SPLITS[0]).is_dir()


def open_prepared(
    path: Path, *, verify: bool = False, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
) -> PreparedData:
    """Open a prepared folder. Raises ConfigError where it is damaged: every file must be there with the
    size that the manifest says; with `verify` the checksums are compared too, which reads all of it."""
    manifest = read_manifest(path)
    for name, facts in manifest["files"].items():
        file = path / name
        if not file.is_file():
            raise ConfigError(f"{path}: damaged, {name} is missing; prepare the data again")
        size = file.stat().st_size
        if size != facts["size"]:
            raise ConfigError(
                f"{path}: damaged, {name} has {size} bytes instead of {facts['size']}; prepare the data again"
            )
        if verify and file_checksum(file) != facts["blake2b"]:
            raise ConfigError(f"{path}: damaged, the content of {name} was altered; prepare the data again")
    return PreparedData(path, manifest, memory_limit_bytes)


def _fill_columns(ids: Array, columns: dict[int, Array], stretches: list[tuple[int, int]]) -> None:
    """Write stretches of columns, one after another, into ids (rows, F); block by block for the cache."""
    place = 0
    for first, last in stretches:
        for start in range(first, last, _FILL_ROWS):
            stop = min(start + _FILL_ROWS, last)
            block = ids[place : place + stop - start]
            for field, column in columns.items():
                block[:, field] = column[start:stop]
            place += stop - start


def _joined(column: Array, stretches: list[tuple[int, int]]) -> Array:
    if stretches == [(0, len(column))] and not isinstance(column, np.memmap):
        return column
    return np.concatenate([column[start:stop] for start, stop in stretches])


def _bag_rows(bag: _BagColumns, stretches: list[tuple[int, int]]) -> BagRows:
    bounds = [bag.offsets[start : stop + 1] for start, stop in stretches]

    def taken(elements: Array) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([elements[int(b[0]) : int(b[-1])] for b in bounds]))

    lengths = np.concatenate([np.diff(bound) for bound in bounds])
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    weights = None if bag.weights is None else taken(bag.weights)
    return BagRows(taken(bag.values), torch.from_numpy(starts), bag.pooling, weights)


def _stem(field: int) -> str:
    return f"field_{field:03d}"
