"""CAFE: ids that prove important while the model trains get rows of their own, the others share hashed rows.

Zhang et al., "CAFE: towards compact, adaptive, and fast embedding for large-scale recommendation models",
SIGMOD 2024, doi 10.1145/3639306. A sketch (`autoembed_kernels.hot_sketch`, one for all fields) sums the
gradient norms of look-ups, each divided by the batch's sum, and points to the rows of hot ids; no statistics
of the data are used. An id that becomes hot starts from the hashed row that it read; one that cools down
reads its hashed row again. The sketch's 48 bytes per hot row are part of the budget, as in the authors' code:

    hot rows = R ratio (1 - hashed) 4 D / (4 D + 48),      hashed rows of a field = R_field ratio hashed

Departs from the authors' code: the threshold is where the hot rows are just used up, not a constant; places
move in rounds of `interval` steps (10 in the first 100); an id takes along the optimizer state, too. There is
one level of hashing. Exported without the sketch, with a bit per id that says which ids have rows.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import (
    Choice,
    Float,
    Int,
    Method,
    Table,
    TableSpec,
    initial_rows,
    knob,
    unread_rows,
)
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, Sharing, plan_bytes
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import dedupe, sum_repeats
from autoembed_kernels.hot_sketch import SLOT_BYTES, SLOTS, HotSketch
from autoembed_kernels.marked_bits import pack_marks
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.row_update import RowOptimizer, row_update

EARLY_STEPS, EARLY_INTERVAL = 100, 10


@dataclass(frozen=True)
class Cafe(Method):
    """Own rows for what gets large gradients, hashed rows for the rest."""

    ratio: float = knob(0.1, Float(1e-4, 1.0, log=True), "rows and sketch per row of the large fields")
    hashed: float = knob(0.5, Float(0.05, 0.95), "share of the ratio that is hashed rows")
    interval: int = knob(
        100, Int(1, 100_000, log=True), "steps between two rounds in which ids gain and lose"
    )
    decay: float = knob(0.98, Float(0.0, 1.0), "what is left of importance after a round; 0: next to nothing")
    margin: float = knob(0.1, Float(0.0, 0.9), "distance to the threshold within which ids stay put")
    bits: int = knob(32, Choice((16, 32)), "bits of every stored value")
    small_rows: int = knob(200, Int(1, 100_000, log=True), "fields of up to so many rows are stored whole")

    name: ClassVar[str] = "cafe"
    summary: ClassVar[str] = "ids with large gradients get a row while training, the others share rows"
    source: ClassVar[str] = "CAFE, doi 10.1145/3639306"
    levers: ClassVar[tuple[str, ...]] = ("sharing", "precision")
    trains_small: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        """Between no hot id and as many as there are places for."""
        if spec.stats.rows >= 2**31:
            raise ValueError(
                f"cafe keeps row numbers below 2^31 in its sketch, the fields have {spec.stats.rows:,} rows "
                "together; raise min_count, or choose hashing"
            )
        left, hot = self.hot_rows(spec), []
        for field, shared in zip(spec.stats.fields, self.shared_rows(spec), strict=True):
            # each field that could have a hot id has one: marks cost bytes
            hot.append(0 if shared == field.rows else max(1, min(left, field.rows)))
            left = max(0, left - hot[-1])
        empty = plan_bytes(self.plan(spec, [0] * len(hot))).total
        full = plan_bytes(self.plan(spec, hot)).total
        # how hot ids fall to fields moves digits of the header and the padding of segments
        return Footprint(empty, full + len(hot) * (spec.profile.table_align - 1) + 32)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> "CafeTable":
        return CafeTable(self, spec, generator, optimizer)

    def shared_rows(self, spec: TableSpec) -> list[int]:
        """Per field, the rows that its ids are hashed to; as many as it has ids where it is stored whole."""
        share = self.ratio * self.hashed
        return [
            field.rows if field.rows <= self.small_rows else math.ceil(share * field.rows)
            for field in spec.stats.fields
        ]

    def hot_rows(self, spec: TableSpec) -> int:
        """Rows for hot ids, of all fields together; at least one."""
        row = 4 * spec.dim
        rows = sum(field.rows for field in spec.stats.fields if field.rows > self.small_rows)
        return max(1, int(rows * self.ratio * (1 - self.hashed) * row / (row + SLOTS * SLOT_BYTES)))

    def plan(self, spec: TableSpec, hot: list[int]) -> Plan:
        """The plan of fields with so many hot ids."""
        fields = []
        precision = f"fp{self.bits}"
        for field, shared, own in zip(spec.stats.fields, self.shared_rows(spec), hot, strict=True):
            sharing = Sharing.MARKED_OR_HASHED if own else Sharing.HASHED
            if shared == field.rows:
                sharing = Sharing.OWN
            segment = Segment(0, field.rows, sharing, shared + own, spec.dim, precision)
            fields.append(FieldPlan(field.name, field.rows, spec.dim, (segment,)))
        return Plan(spec.profile, tuple(fields))


class CafeTable(Table):
    """The rows of small fields and the hashed ones behind one another, the hot ids' rows, and the sketch."""

    own: Tensor
    counts: Tensor

    def __init__(
        self, method: Cafe, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        method.footprint(spec)  # refuses more rows than the sketch can name
        super().__init__(spec)
        self.method, self.optimizer = method, optimizer
        counts = method.shared_rows(spec)
        self.register_buffer("counts", torch.tensor(counts, dtype=torch.int64), persistent=False)
        weight = initial_rows(spec, sum(counts), generator)
        unread = unread_rows(spec.stats)
        field = torch.searchsorted(self.first_rows, unread, right=True) - 1
        weight[self._shared_row(unread[~self._is_hashed()[field]])] = 0.0
        self.shared = RowStore(weight, optimizer)
        self.sketch = HotSketch(method.hot_rows(spec))
        self.register_buffer("own", torch.zeros(self.sketch.places, spec.dim))
        for name, state in optimizer.state(self.own).items():
            self.register_buffer(f"own_{name}", state, persistent=False)
        self._pending: tuple[Tensor, Tensor, Tensor] | None = None

    def values(self, lookup: Lookup) -> Tensor:
        place = self.sketch.place_of(lookup.rows)
        shared = self._shared_row(lookup.rows)
        values = self.shared.weight.index_select(0, shared)
        hot = (place >= 0).nonzero().squeeze(1)
        values.index_copy_(0, hot, self.own[place[hot]])
        if torch.is_grad_enabled():
            values.requires_grad_()
            # hot rows are numbered behind all others
            address = torch.where(place >= 0, len(self.shared.weight) + place, shared)
            self._pending = lookup.rows, address, values
        if self.method.bits == 16:
            return values + (values.detach().half().float() - values.detach())
        return values

    def _shared_row(self, rows: Tensor) -> Tensor:
        """Global rows (N,) -> where they read `shared` unless they are hot (N,)."""
        field = torch.searchsorted(self.first_rows, rows, right=True) - 1
        rank = rows - self.first_rows[field]
        count = self.counts[field]
        hashed = torch.where(self._is_hashed()[field], row_hash(rank, field, count), rank)
        return (self.counts.cumsum(0) - self.counts)[field] + hashed

    def _is_hashed(self) -> Tensor:
        """(F,) bool: the fields that are not stored whole."""
        ends = torch.cat([self.first_rows[1:], self.first_rows.new_tensor([self.spec.stats.rows])])
        return self.counts < ends - self.first_rows

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        if self._pending is None:
            return
        rows, address, values = self._pending
        self._pending = None
        if values.grad is None:
            return
        shared_count = len(self.shared.weight)
        distinct, repeats = dedupe(address, shared_count + len(self.own))
        gradient = sum_repeats(values.grad, repeats.order, repeats.starts)
        at = int((distinct < shared_count).sum())  # they ascend
        names = self.optimizer.state_names
        shared_state = {name: getattr(self.shared, name) for name in names}
        row_update(
            self.optimizer, self.shared.weight, shared_state, distinct[:at], gradient[:at], learning_rate
        )
        own_state = {name: getattr(self, f"own_{name}") for name in names}
        hot = distinct[at:] - shared_count
        row_update(self.optimizer, self.own, own_state, hot, gradient[at:], learning_rate)
        self._weigh(rows, values.grad.norm(dim=1))

    def _weigh(self, rows: Tensor, norms: Tensor) -> None:
        """Add the look-ups (N,) of hashed fields to the sketch, by their share of all gradient norms (N,)."""
        norms = norms / norms.sum().clamp(min=torch.finfo(norms.dtype).tiny)
        field = torch.searchsorted(self.first_rows, rows, right=True) - 1
        counted = self._is_hashed()[field]
        distinct, repeats = dedupe(rows[counted], self.spec.stats.rows)
        amounts = sum_repeats(norms[counted].unsqueeze(1), repeats.order, repeats.starts)
        self.sketch.add(distinct, amounts.squeeze(1))

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        interval = min(EARLY_INTERVAL, self.method.interval) if step <= EARLY_STEPS else self.method.interval
        if step % interval:
            return
        moved = self.sketch.rebalance(self.method.decay, self.method.margin)
        left = self._shared_row(moved.rows)
        self.own[moved.places] = self.shared.weight[left]
        for name in self.optimizer.state_names:
            getattr(self, f"own_{name}")[moved.places] = getattr(self.shared, name)[left]

    def plan(self) -> Plan:
        return self.method.plan(self.spec, [int((places >= 0).sum()) for places in self._places()])

    @torch.no_grad()
    def pack(self) -> Packed:
        places, ends = self._places(), self.counts.cumsum(0).tolist()

        def rows_of(field: int, segment: Segment) -> SegmentRows:
            hot = places[field] >= 0
            rows = self.shared.weight[ends[field] - int(self.counts[field]) : ends[field]]
            rows = torch.cat([rows, self.own[places[field][hot]]])
            if self.method.bits == 16:
                rows = rows.half().float()
            marks = pack_marks(hot.cpu()) if segment.sharing is Sharing.MARKED_OR_HASHED else None
            return SegmentRows(rows, index=marks)

        return pack(self.plan(), rows_of)

    def _places(self) -> list[Tensor]:
        """Per field (rows,) int64: the place of every id's own row, or -1."""
        rows = torch.full((self.spec.stats.rows,), -1, dtype=torch.int64, device=self.own.device)
        held = self.sketch.place >= 0
        rows[self.sketch.rows[held].long()] = self.sketch.place[held].long()
        firsts = (*self.spec.stats.first_rows, self.spec.stats.rows)
        return [rows[first:end] for first, end in pairwise(firsts)]

    @property
    def training_bytes(self) -> int:
        """Rows of all kinds with their optimizer state, and the sketch."""
        return sum(b.numel() * b.element_size() for b in self.buffers())
