"""Half precision: trained as 32-bit floats, stored as the nearest 16-bit floats.

The forward pass already sees the rounded rows, so that the stored table is the one that was validated.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Method, Table, TableSpec
from autoembed.methods.fixed_plan import fresh_table
from autoembed.methods.plans import fixed_footprint, uniform_fields
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class Fp16(Method):
    """One row of 16-bit floats per id."""

    name: ClassVar[str] = "fp16"
    summary: ClassVar[str] = "one row of 16-bit floats per id, rounded to the nearest"
    source: ClassVar[str] = "IEEE 754 binary16"
    levers: ClassVar[tuple[str, ...]] = ("precision",)

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, uniform_fields(spec, 16))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return fresh_table(spec, uniform_fields(spec, 16), generator, optimizer)
