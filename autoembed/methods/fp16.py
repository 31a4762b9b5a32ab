"""Half precision: trained as 32-bit floats, stored as the nearest 16-bit floats.

The forward pass already sees the rounded rows, so that the stored table is the one that was validated.
"""

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
class Fp16(Method):
    """One row of 16-bit floats per id."""

    name: ClassVar[str] = "fp16"
    summary: ClassVar[str] = "one row of 16-bit floats per id, rounded to the nearest"
    source: ClassVar[str] = "IEEE 754 binary16"
    levers: ClassVar[tuple[str, ...]] = ("precision",)

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(stored_plan(spec.profile, uniform_fields(spec, 16))).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        weight = initial_rows(spec, spec.stats.rows, generator)
        return FixedPlanTable(spec, uniform_fields(spec, 16), weight, optimizer)
