"""Rows of 8 or 4 bits with a small float32 cache of those in use, in which they train.

Yang et al., "Mixed-precision embedding using a cache", arXiv:2010.11305. The table is held in integer codes.
A step's rows are looked for in a set-associative cache (`autoembed_kernels.row_cache`; 32 ways, as in
FBGEMM) and trained there in float32; a row that leaves it is rounded by chance. Rows that find no slot,
because the rows of one step fill their set, are read from the codes and written back at once. Before
packing, the cache is written back: it does not exist in the file.

`placement`: `lru` and `lfu` are the paper's; `rank` is a variant without tags: the rows with the most
look-ups in train stay in float32 for good, in the file, too, and all others in codes.

Fills gaps of the paper, whose details we could not read: optimizer state is float32, one entry per row, and
not cached, as in FBGEMM; uses are counted per row under `lfu`. Scales are in the rows, so only profiles that
keep them there can store the codes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Float, Method, Table, TableSpec, initial_rows, knob, unread_rows
from autoembed.methods.code_rows import CodeRows
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, own, plan_bytes
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import Repeats, dedupe, repeat, take_rows
from autoembed_kernels.row_cache import RowCache
from autoembed_kernels.row_update import RowOptimizer

WAYS = 32


@dataclass(frozen=True)
class CachedLowPrecision(Method):
    """Codes for all rows, float32 for those in use."""

    bits: int = knob(8, Choice((4, 8)), "bits of a code outside of the cache")
    cache: float = knob(
        0.05, Float(1e-4, 1.0, log=True), "rows of the cache per row of the table, in whole sets of 32"
    )
    placement: str = knob("lru", Choice(("lru", "lfu", "rank")), "which rows are in the cache")

    name: ClassVar[str] = "cached_low_precision"
    summary: ClassVar[str] = "codes of 8 or 4 bits, trained in a small float32 cache"
    source: ClassVar[str] = "mixed-precision embedding using a cache, arXiv:2010.11305"
    levers: ClassVar[tuple[str, ...]] = ("precision",)
    trains_small: ClassVar[bool] = True
    ranks: ClassVar[tuple[str, str]] = ("placement", "rank")

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(self.plan(spec)).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return CachedTable(self, spec, generator, optimizer)

    def slots(self, spec: TableSpec) -> int:
        """Rows of the cache, at least one; `RowCache` leaves those out that fill no set."""
        return max(1, round(self.cache * spec.stats.rows))

    def plan(self, spec: TableSpec) -> Plan:
        """Raises ValueError where the profile keeps no scale in a row."""
        if spec.profile.row_scale_bytes == 0:
            raise ValueError(
                f"profile {spec.profile.name!r} cannot store a scale in each row, which cached_low_precision "
                "needs; take a profile with row scales"
            )
        codes = f"int{self.bits}"
        fields = []
        for field, hot in zip(spec.stats.fields, self.hot_rows(spec), strict=True):
            segments = [own(0, hot, spec.dim, "fp32")] if hot else []
            if hot < field.rows:
                segments.append(own(hot, field.rows, spec.dim, codes))
            fields.append(FieldPlan(field.name, field.rows, spec.dim, tuple(segments)))
        return Plan(spec.profile, tuple(fields))

    def hot_rows(self, spec: TableSpec) -> list[int]:
        """Of every field, how many of its first rows are float32 in the file.

        Ids are ranked by look-ups behind row 0, which all unseen ids read and which goes with the first of
        them: of all fields' rows the most looked-up ones, as many as the cache has slots.
        """
        if self.placement != "rank":
            return [0] * len(spec.stats.fields)
        counts = [np.maximum(field.counts, field.counts[1:2].max(initial=0) * (np.arange(field.rows) == 0))
                  for field in spec.stats.fields]  # fmt: skip
        flat = np.concatenate(counts)
        owner = np.repeat(np.arange(len(counts)), [len(part) for part in counts])
        chosen = owner[np.argsort(-flat, kind="stable")[: self.slots(spec)]]
        hot: list[int] = np.bincount(chosen, minlength=len(counts)).tolist()
        return hot


class CachedTable(Table):
    """Codes with a cache in front of them, or beside rows that are always float32."""

    hot: Tensor

    def __init__(
        self, method: CachedLowPrecision, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        super().__init__(spec)
        self.method = method
        self.codes = CodeRows(spec, method.bits, generator, optimizer)
        hot = torch.tensor(method.hot_rows(spec), dtype=torch.int64)
        self.register_buffer("hot", hot, persistent=False)
        if method.placement == "rank":
            # the codes of the rows before `hot` of every field are never read: these live in `resident`
            weight = initial_rows(spec, int(hot.sum()), generator)
            place, is_hot = self._resident_places(unread_rows(spec.stats))
            weight[place[is_hot]] = 0.0
            self.resident: RowStore | None = RowStore(weight, optimizer)
            self.cache: RowCache | None = None
        else:
            self.resident = None
            self.cache = RowCache(spec.stats.rows, method.slots(spec), WAYS, method.placement)
            self.register_buffer("cached", torch.zeros(len(self.cache.tags), spec.dim))
        self._pending: tuple[Tensor, Tensor, Tensor] | None = None

    cached: Tensor

    def values(self, lookup: Lookup) -> Tensor:
        if self.resident is not None:
            return self._with_residents(lookup.rows, self.resident)
        rows, repeats = dedupe(lookup.rows, len(self.codes.weight))
        assert self.cache is not None
        if not torch.is_grad_enabled():
            return repeat(self._read(rows, self.cache.find(rows)), repeats)
        slot = self._admit(rows, repeats, self.cache)
        values = self._read(rows, slot).requires_grad_()
        self._pending = rows, slot, values
        return repeat(values, repeats)

    def _resident_places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """rows (N,) -> their places in `resident` (N,), and which of them are there (N,) bool."""
        field = torch.searchsorted(self.first_rows, rows, right=True) - 1
        rank = rows - self.first_rows[field]
        return (torch.cumsum(self.hot, 0) - self.hot)[field] + rank, rank < self.hot[field]

    def _with_residents(self, rows: Tensor, resident: RowStore) -> Tensor:
        place, is_hot = self._resident_places(rows)
        values = torch.zeros(len(rows), self.spec.dim, device=rows.device)
        hot = is_hot.nonzero().squeeze(1)
        _, weights, repeats = resident.gather(place[hot])
        values = values.index_copy(0, hot, repeat(weights, repeats))
        cold = (~is_hot).nonzero().squeeze(1)
        unique, repeats = dedupe(rows[cold], len(self.codes.weight))
        read = self.codes.read(unique)
        if torch.is_grad_enabled():
            read.requires_grad_()
            self._pending = unique, torch.full_like(unique, -1), read
        return values.index_copy(0, cold, repeat(read, repeats))

    def _admit(self, rows: Tensor, repeats: Repeats, cache: RowCache) -> Tensor:
        """Make room for a step's rows (U,) and fill it; returns their slots, -1 for those that got none."""
        uses = repeats.starts.diff(append=repeats.starts.new_tensor([len(repeats.order)]))
        placed = cache.place(rows, uses)
        if len(placed.evicted):
            self.codes.write(placed.evicted, self.cached[placed.freed])
        new = ((placed.slot >= 0) & ~placed.was_there).nonzero().squeeze(1)
        self.cached[placed.slot[new]] = self.codes.read(rows[new])
        return placed.slot

    def _read(self, rows: Tensor, slot: Tensor) -> Tensor:
        """Rows (U,) from their slots, those without one from the codes."""
        values = take_rows(self.cached, slot.clamp(min=0))
        absent = (slot < 0).nonzero().squeeze(1)
        if len(absent):
            values.index_copy_(0, absent, self.codes.read(rows[absent]))
        return values

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        if self.resident is not None:
            self.resident.update(learning_rate)
        if self._pending is None:
            return
        rows, slot, values = self._pending
        self._pending = None
        if values.grad is None:
            return
        updated = self.codes.stepped(rows, values, values.grad, learning_rate)
        absent = (slot < 0).nonzero().squeeze(1)
        if self.cache is not None and not len(absent):
            self.cached.index_copy_(0, slot, updated)
            return
        if self.cache is not None:
            held = (slot >= 0).nonzero().squeeze(1)
            self.cached.index_copy_(0, slot[held], updated[held])
        if len(absent):
            self.codes.write(rows[absent], updated[absent])

    @torch.no_grad()
    def flush(self) -> None:
        """Write the cache back into the codes, by chance, and empty it."""
        if self.cache is None:
            return
        rows, slots = self.cache.rows()
        if len(rows):
            self.codes.write(rows, self.cached[slots])
            self.cache.tags.fill_(-1)

    def settle(self) -> bool:
        self.flush()
        return False

    def plan(self) -> Plan:
        return self.method.plan(self.spec)

    @torch.no_grad()
    def pack(self) -> Packed:
        self.flush()
        starts = torch.cumsum(self.hot, 0) - self.hot

        def rows_of(field: int, segment: Segment) -> SegmentRows:
            first = self.spec.stats.first_rows[field]
            if not segment.is_integer:
                assert self.resident is not None
                at = int(starts[field])
                return SegmentRows(self.resident.weight[at : at + segment.stop])
            rows = torch.arange(first + segment.start, first + segment.stop, device=self.hot.device)
            return SegmentRows(self.codes.read(rows), self.codes.steps[rows].float())

        return pack(self.plan(), rows_of)

    @property
    def training_bytes(self) -> int:
        """Codes with their steps, optimizer state of every row, the cache with its tags and stamps."""
        return sum(b.numel() * b.element_size() for b in self.buffers())
