"""Hashing: the ids of a field share a smaller number of rows, assigned by a hash.

Weinberger et al., "Feature hashing for large scale multitask learning", arXiv:0902.2206; here one row per
id without a sign. Small fields and every field's out-of-vocabulary row stay as they are.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Choice, Float, Int, Method, Table, TableSpec, knob
from autoembed.methods.fixed_plan import fresh_table
from autoembed.methods.plans import GRIDS, Fields, fixed_footprint, is_signs, stored_segment
from autoembed.plan import FieldPlan, Segment
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class Hashing(Method):
    """Hash the ids of every field with more than `small_rows` rows to the share `ratio` of its rows."""

    ratio: float = knob(0.25, Float(1e-4, 1.0, log=True), "stored rows per row of a hashed field")
    bits: int = knob(32, Choice((1, 2, 3, 4, 8, 16, 32)), "bits of every stored value")
    small_rows: int = knob(200, Int(1, 100_000, log=True), "fields of up to so many rows are not hashed")
    grid: str = knob("steps", Choice(GRIDS), "of codes: steps, or sums of signs as bebr has them")

    name: ClassVar[str] = "hashing"
    summary: ClassVar[str] = "ids share rows by a hash"
    source: ClassVar[str] = "the hashing trick, arXiv:0902.2206"
    levers: ClassVar[tuple[str, ...]] = ("sharing", "precision")
    trains_small: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, self._fields(spec))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return fresh_table(spec, self._fields(spec), generator, optimizer)

    def _fields(self, spec: TableSpec) -> Fields:
        signs = is_signs(self.grid, self.bits, spec.profile)
        return tuple(
            FieldPlan(field.name, field.rows, spec.dim, self._segments(field.rows, spec.dim, number, signs))
            for number, field in enumerate(spec.stats.fields)
        )

    def _segments(self, rows: int, dim: int, number: int, signs: bool) -> tuple[Segment, ...]:
        stored = math.ceil(self.ratio * (rows - 1))
        if rows <= self.small_rows or stored >= rows - 1:
            return (stored_segment(0, rows, dim, self.bits, number, signs=signs),)
        return (
            stored_segment(0, 1, dim, self.bits, number, signs=signs),
            stored_segment(1, rows, dim, self.bits, number, stored, signs=signs),
        )
