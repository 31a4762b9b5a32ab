"""Every id has its own row of 32-bit floats: the reference that compression is measured against."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Method, Table, TableSpec
from autoembed.methods.fixed_plan import fresh_table
from autoembed.methods.plans import fixed_footprint, uniform_fields
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class FullPrecision(Method):
    """One float32 row per id."""

    name: ClassVar[str] = "full_precision"
    summary: ClassVar[str] = "one float32 row per id: the reference"
    source: ClassVar[str] = "the uncompressed model"
    levers: ClassVar[tuple[str, ...]] = ()

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, uniform_fields(spec, 32))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return fresh_table(spec, uniform_fields(spec, 32), generator, optimizer)
