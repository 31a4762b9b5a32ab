"""ROBE: the vectors of all ids of all fields are cut from one flat pool of values.

Desai, Chou and Shrivastava, "Random offset block embedding array (ROBE)", arXiv:2108.02191. A vector is cut
into blocks of `block` values; a hash of the id and the number of the block says at which value of the
pool the block begins, so that blocks of different ids overlap anywhere. Training holds the pool only, and
gradients of all that share a value are summed.

Departs from the paper: the hash is that of this package, there is no hash of the sign, and values start from
N(0, initial_std^2) as everywhere here.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Float, Method, Table, TableSpec, knob
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, Sharing, plan_bytes
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import dedupe, repeat
from autoembed_kernels.pool_slots import pool_slots
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class Robe(Method):
    """One pool for all ids."""

    ratio: float = knob(1 / 16, Float(1e-4, 1.0, log=True), "values of the pool per value of full precision")
    block: int = knob(8, Choice((1, 2, 4, 8, 16, 32)), "values that lie together; at most the dimension")
    bits: int = knob(32, Choice((16, 32)), "bits of every stored value")

    name: ClassVar[str] = "robe"
    summary: ClassVar[str] = "vectors are cut from one pool that all ids share"
    source: ClassVar[str] = "ROBE, arXiv:2108.02191"
    levers: ClassVar[tuple[str, ...]] = ("sharing", "precision")
    trains_small: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(self.plan(spec)).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return RobeTable(spec, self.plan(spec), generator, optimizer)

    def plan(self, spec: TableSpec) -> Plan:
        """Every field is one segment that reads the pool; the first one stores it."""
        block = min(self.block, spec.dim)
        blocks = math.ceil(self.ratio * spec.stats.rows * spec.dim / block)
        fields = []
        for number, field in enumerate(spec.stats.fields):
            stored = 0 if number else blocks
            segment = Segment(0, field.rows, Sharing.POOL, stored, block, f"fp{self.bits}")
            fields.append(FieldPlan(field.name, field.rows, spec.dim, (segment,)))
        return Plan(spec.profile, tuple(fields))


class RobeTable(Table):
    """Trains the values of the pool, each with its own optimizer state."""

    def __init__(
        self, spec: TableSpec, plan: Plan, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        super().__init__(spec)
        assert plan.pool is not None
        self._plan = plan
        self.segment = plan.pool
        self.blocks = -(-spec.dim // self.segment.dim)
        slots = self.segment.stored_rows * self.segment.dim
        pool = torch.empty(slots, 1).normal_(0.0, spec.initial_std, generator=generator)
        self.pool = RowStore(pool, optimizer)

    def values(self, lookup: Lookup) -> Tensor:
        rows, repeats = dedupe(lookup.rows, self.spec.stats.rows)
        weights = self.pool.look_up(self._slots(rows).flatten())
        if self.segment.precision == "fp16":
            weights = weights + (weights.detach().half().float() - weights.detach())
        width = self.blocks * self.segment.dim
        vectors = weights.view(len(rows), width)[:, : self.spec.dim]
        return repeat(vectors, repeats)

    def _slots(self, rows: Tensor) -> Tensor:
        """Global rows (U,) -> the slots (U, blocks * block) of their values."""
        field = torch.searchsorted(self.first_rows, rows, right=True) - 1
        block = self.segment.dim
        first = pool_slots(rows - self.first_rows[field], field, self.blocks, block, len(self.pool.weight))
        return (first.unsqueeze(2) + torch.arange(block, device=rows.device)).flatten(1)

    def update(self, learning_rate: float) -> None:
        self.pool.update(learning_rate)

    def plan(self) -> Plan:
        return self._plan

    def pack(self) -> Packed:
        return pack(self._plan, lambda *_: SegmentRows(self.pool.weight.view(-1, self.segment.dim)))

    @property
    def training_bytes(self) -> int:
        return self.pool.nbytes
