"""Uniform low precision: all rows in codes of one width, with one learned step per field.

Esser et al., "Learned step size quantization", arXiv:1902.08153; Bhalgat et al., "LSQ+", arXiv:2004.09576.
Departs from LSQ+: no learned offset; 1 and 2 bits use the mid-rise grid (1 bit is +-step/2).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Choice, Method, Table, TableSpec, knob
from autoembed.methods.fixed_plan import fresh_table
from autoembed.methods.plans import fixed_footprint, uniform_fields
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class Uniform(Method):
    """Codes of `bits` bits for every id."""

    bits: int = knob(8, Choice((1, 2, 3, 4, 8)), "bits of every code")

    name: ClassVar[str] = "uniform"
    summary: ClassVar[str] = "codes of one width for all rows, with a learned step per field"
    source: ClassVar[str] = "LSQ, arXiv:1902.08153; LSQ+, arXiv:2004.09576"
    levers: ClassVar[tuple[str, ...]] = ("precision",)

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, uniform_fields(spec, self.bits))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return fresh_table(spec, uniform_fields(spec, self.bits), generator, optimizer)
