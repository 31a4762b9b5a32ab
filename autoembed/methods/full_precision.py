"""Every id has its own row of 32-bit floats: the reference that compression is measured against."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Method, Table, TableSpec, initial_rows
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.plans import stored_plan, uniform_fields
from autoembed.plan import plan_bytes
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class FullPrecision(Method):
    """One float32 row per id."""

    name: ClassVar[str] = "full_precision"
    summary: ClassVar[str] = "one float32 row per id: the reference"
    source: ClassVar[str] = "the uncompressed model"
    levers: ClassVar[tuple[str, ...]] = ()

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(stored_plan(spec.profile, uniform_fields(spec, 32))).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        weight = initial_rows(spec, spec.stats.rows, generator)
        return FixedPlanTable(spec, uniform_fields(spec, 32), weight, optimizer)
