"""Rows of prepared data in another order: which row stands where, and batches whose ids say so.

Preparing numbers the ids of a field by frequency. A vocabulary can list them in any order at the same bytes,
and ids are looked up in it at the same cost; what is learned in another order is exported with a vocabulary
in that order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save
from torch import Tensor

from autoembed.data.batch import Batch
from autoembed.files import write_file

Permutation = npt.NDArray[np.int32]


@dataclass(frozen=True)
class RowPlaces:
    """Per field, where each row went: places[f][row] (R,) int32; rows may share a place."""

    places: tuple[Permutation, ...]

    def batch(self, batch: Batch) -> Batch:
        """The same examples, which read the rows where they went."""
        flat, first = self._flat
        bags = {
            field: replace(bag, values=flat.index_select(0, bag.values + first[field]).long())
            for field, bag in batch.bags.items()
        }
        ids = flat.index_select(0, (batch.ids + first).flatten()).view_as(batch.ids)
        return Batch(batch.labels, batch.dense, ids.long(), bags)

    @cached_property
    def _flat(self) -> tuple[Tensor, Tensor]:
        ends = np.cumsum([0] + [len(places) for places in self.places])
        return torch.from_numpy(np.concatenate(self.places)), torch.from_numpy(ends[:-1])


@dataclass(frozen=True)
class RowOrder:
    """Per field, rows[f][place] (R,) int32 is the row that stands there; row 0 stays at place 0."""

    rows: tuple[Permutation, ...]

    def __post_init__(self) -> None:
        for number, rows in enumerate(self.rows):
            if not _is_permutation(rows) or rows[0] != 0:
                raise ValueError(f"field {number}: no order of all its rows that begins with row 0")

    @cached_property
    def places(self) -> RowPlaces:
        """The inverse."""
        found = []
        for rows in self.rows:
            places = np.empty_like(rows)
            places[rows] = np.arange(len(rows), dtype=rows.dtype)
            found.append(places)
        return RowPlaces(tuple(found))

    def of_table(self, table: Tensor) -> Tensor:
        """Rows (R, ...) of all fields behind one another, each field's in this order."""
        first, parts = 0, []
        for rows in self.rows:
            parts.append(torch.from_numpy(rows).long() + first)
            first += len(rows)
        return table.index_select(0, torch.cat(parts).to(table.device))

    def is_same(self, other: "RowOrder") -> bool:
        return all(map(np.array_equal, self.rows, other.rows))

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        write_file(path, [save({str(number): rows for number, rows in enumerate(self.rows)})])

    @staticmethod
    def load(path: Path, sizes: Sequence[int]) -> "RowOrder":
        """What `save` wrote for fields of so many rows. Raises ValueError where it is none of them."""
        tensors: dict[str, npt.NDArray[Any]] = load_file(path)
        rows = tuple(tensors[str(number)] for number in range(len(tensors)) if str(number) in tensors)
        if [len(part) for part in rows] != list(sizes) or any(part.dtype != np.int32 for part in rows):
            raise ValueError(f"{path}: holds no order of fields of {', '.join(map(str, sizes))} rows")
        return RowOrder(rows)


def _is_permutation(rows: Permutation) -> bool:
    """Whether every number below their count is there once, and any at all."""
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(rows):
        return False
    is_there = np.zeros(len(rows), dtype=np.bool_)
    is_there[rows] = True
    return bool(is_there.all())
