"""Every id has its own row of 32-bit floats: the reference that compression is measured against."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.row_update import RowOptimizer
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Method, Table, TableSpec, initial_rows
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, own, plan_bytes
from autoembed.tables import RowStore


@dataclass(frozen=True)
class FullPrecision(Method):
    """One float32 row per id."""

    name: ClassVar[str] = "full_precision"
    summary: ClassVar[str] = "one float32 row per id"
    source: ClassVar[str] = "the uncompressed model"
    levers: ClassVar[tuple[str, ...]] = ()

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(_plan(spec)).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> "_Rows":
        return _Rows(spec, generator, optimizer)


class _Rows(Table):
    def __init__(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> None:
        super().__init__(spec)
        self.rows = RowStore(initial_rows(spec, spec.stats.rows, generator), optimizer)

    def values(self, lookup: Lookup) -> Tensor:
        _, weights, inverse = self.rows.gather(lookup.rows)
        return repeat(weights, inverse)

    def update(self, learning_rate: float) -> None:
        self.rows.update(learning_rate)

    def plan(self) -> Plan:
        return _plan(self.spec)

    def pack(self) -> Packed:
        first_rows = self.spec.stats.first_rows

        def rows_of(field: int, segment: Segment) -> SegmentRows:
            first = first_rows[field]
            return SegmentRows(self.rows.weight[first + segment.start : first + segment.stop])

        return pack(self.plan(), rows_of)

    @property
    def training_bytes(self) -> int:
        return self.rows.nbytes


def _plan(spec: TableSpec) -> Plan:
    fields = (
        FieldPlan(field.name, field.rows, spec.dim, (own(0, field.rows, spec.dim, "fp32"),))
        for field in spec.stats.fields
    )
    return Plan(spec.profile, tuple(fields))
