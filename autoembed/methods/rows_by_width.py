"""The stored rows of a plan whose segments differ in dimension: one flat array for every width.

Stored rows are numbered in the order of the plan's segments, as `placed_segments` does, whatever their
width; a row of d values takes d values while training, too, and so does each part of its optimizer state.
"""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Fields, placed_segments
from autoembed.methods.stored_precision import StoredPrecision
from autoembed.packed import SegmentRows
from autoembed.plan import Segment
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.row_update import RowOptimizer


class RowsByWidth(nn.Module):
    """Trainable rows of the plan `fields`. Integer segments number their steps 0, 1, ... in plan order.

    `weights`: the first values of every segment that stores rows, in plan order, (stored_rows, dim) each.
    """

    first: Tensor
    store: Tensor
    local: Tensor

    def __init__(
        self, spec: TableSpec, fields: Fields, weights: list[Tensor], optimizer: RowOptimizer
    ) -> None:
        super().__init__()
        self.dim = spec.dim
        placed = list(placed_segments(fields))
        self.widths = tuple(sorted({segment.dim for _, segment, _ in placed}))
        parts: list[list[Tensor]] = [[] for _ in self.widths]
        held: list[list[tuple[int, Segment, int]]] = [[] for _ in self.widths]
        rows_held = [0] * len(self.widths)
        self._place: dict[tuple[int, int], tuple[int, int, int | None]] = {}
        entries = []
        for (field, segment, first), weight in zip(placed, weights, strict=True):
            number = self.widths.index(segment.dim)
            step = sum(s.is_integer for _, s, _ in held[number]) if segment.is_integer else None
            at = rows_held[number]
            self._place[field, segment.start] = number, at, step
            entries.append((first, number, at))
            held[number].append((field, dataclasses.replace(segment, scale=step), at))
            parts[number].append(weight)
            rows_held[number] += segment.stored_rows
        columns = torch.tensor(entries, dtype=torch.int64).T.contiguous()
        for name, column in zip(("first", "store", "local"), columns, strict=True):
            self.register_buffer(name, column.clone(), persistent=False)
        stores, precisions = [], []
        for number, segments in enumerate(held):
            weight = torch.cat(parts[number])
            parts[number].clear()
            stores.append(RowStore(weight, optimizer))
            precisions.append(StoredPrecision(segments, spec.profile, weight, None, None, None))
        self.stores = nn.ModuleList(stores)
        self.precisions = nn.ModuleList(precisions)

    def forward(self, stored: Tensor) -> Tensor:
        """stored rows (N,) -> (N, D) as they will be stored, zeros behind a row's own width."""
        if len(self.widths) == 1:
            return self._read(0, stored + (self.local[0] - self.first[0]))
        segment = torch.searchsorted(self.first, stored, right=True) - 1
        number = self.store[segment]
        local = stored - self.first[segment] + self.local[segment]
        values = torch.zeros(len(stored), self.dim, device=stored.device)
        for index in range(len(self.widths)):
            chosen = (number == index).nonzero().squeeze(1)
            if len(chosen):
                values = values.index_copy(0, chosen, self._read(index, local[chosen]))
        return values

    def _read(self, number: int, rows: Tensor) -> Tensor:
        if self.precisions[number].is_float32:
            values = self._store(number).look_up(rows)
        else:
            unique, weights, repeats = self._store(number).gather(rows)
            values = repeat(self.precisions[number](unique, weights), repeats)
        behind = self.dim - self.widths[number]
        return pad(values, (0, behind)) if behind else values

    def update(self, learning_rate: float) -> None:
        """One optimizer step on the rows read last, whatever their width."""
        for number in range(len(self.widths)):
            self._store(number).update(learning_rate)

    def segment_rows(self, field: int, segment: Segment) -> SegmentRows:
        """What `pack` stores in a segment of the plan."""
        number, at, step = self._place[field, segment.start]
        weight = self._store(number).weight
        rows = torch.arange(at, at + segment.stored_rows, device=weight.device)
        values = self.precisions[number](rows, weight[rows])
        return SegmentRows(values, None if step is None else self._steps(number)[step])

    def steps(self) -> Tensor:
        """The learned steps (S,) of all integer segments, in plan order."""
        learned = [self._steps(n)[step] for n, _, step in self._place.values() if step is not None]
        return torch.stack(learned) if learned else self.first.new_zeros(0, dtype=torch.float32)

    def _store(self, number: int) -> RowStore:
        store = self.stores[number]
        assert isinstance(store, RowStore)
        return store

    def _steps(self, number: int) -> Tensor:
        precision = self.precisions[number]
        assert isinstance(precision, StoredPrecision)
        return precision.stored_steps()

    @property
    def nbytes(self) -> int:
        """Rows with their state, the places of segments, and learned steps with the two moments of Adam."""
        buffers = sum(b.numel() * b.element_size() for b in self.buffers())
        return buffers + 3 * sum(p.numel() * p.element_size() for p in self.parameters())
