"""Recurrent binarization: a value is a sum of signs, each half as heavy as the one before.

Gan et al., "Binary embedding-based retrieval at Tencent", arXiv:2302.08714 (BEBR). A value is
scale (b_0 + b_1 / 2 + b_2 / 4 + ...), b_t the sign of what the signs before leave.

With scales that halve, as there, b signs reach the 2^b odd multiples of half a step, and the recursion ends
at the nearest of them: it is the mid-rise grid with a step of scale 2^(2 - b), stored in b-bit codes without
a format of its own. A free scale for every sign would need one, and is not built: on normal values it takes
less than 3 percent off the squared error of 2 to 4 signs.

Departs from BEBR: no projection and no normalisation, the scale is a learned step per field, gradients pass
straight through (LSQ), and retrieval by bits is not what a recommender's look-ups do.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Choice, Method, Table, TableSpec, knob
from autoembed.methods.fixed_plan import fresh_table
from autoembed.methods.plans import Fields, fixed_footprint, is_signs, uniform_fields
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class Bebr(Method):
    """`bits` signs for every value."""

    bits: int = knob(2, Choice((1, 2, 3, 4)), "signs of every value")

    name: ClassVar[str] = "bebr"
    summary: ClassVar[str] = "values as 1 to 4 signs, each half as heavy as the one before"
    source: ClassVar[str] = "BEBR, arXiv:2302.08714"
    levers: ClassVar[tuple[str, ...]] = ("precision",)

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, self.fields(spec))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return fresh_table(spec, self.fields(spec), generator, optimizer)

    def fields(self, spec: TableSpec) -> Fields:
        """Raises ValueError where the profile keeps a half-precision bias that 4 signs do not fit."""
        return uniform_fields(spec, self.bits, signs=is_signs("signs", self.bits, spec.profile))
