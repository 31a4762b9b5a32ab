"""CAFE, offline: frequent ids keep rows of their own, the others of a field share rows by a hash.

Zhang et al., "CAFE: towards compact, adaptive, and fast embedding for large-scale recommendation models",
SIGMOD 2024, doi 10.1145/3639306: the static split that the authors compare their online sketch with. Of the
rows that are stored, the share `hashed` is left to the hash, in each field by its number of ids without a
row; the other rows go to the ids that are looked up most, over all fields together.

Departs from the paper: importance is the number of look-ups in the train split, not the norm of
gradients; ids are frequency ranks, so that the split of a field takes one boundary and no sketch; the
out-of-vocabulary row is always a row of its own; fields of up to `small_rows` rows are stored whole.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Choice, Float, Int, Method, Table, TableSpec, knob
from autoembed.methods.fixed_plan import fresh_table
from autoembed.methods.frequency_cut import most_frequent_rows
from autoembed.methods.plans import GRIDS, Fields, fixed_footprint, is_signs, stored_segment
from autoembed.plan import FieldPlan, Segment
from autoembed.stats import Stats
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class CafeOffline(Method):
    """Own rows for hot ids and hashed rows for the others, `ratio` of all rows together."""

    ratio: float = knob(0.1, Float(1e-4, 1.0, log=True), "stored rows per row of the large fields")
    hashed: float = knob(0.5, Float(0.05, 0.95), "share of the stored rows that is shared by a hash")
    bits: int = knob(32, Choice((1, 2, 3, 4, 8, 16, 32)), "bits of every stored value")
    small_rows: int = knob(200, Int(1, 100_000, log=True), "fields of up to so many rows are stored whole")
    grid: str = knob("steps", Choice(GRIDS), "of codes: steps, or sums of signs as bebr has them")

    name: ClassVar[str] = "cafe_offline"
    summary: ClassVar[str] = "frequent ids keep a row, the others share rows by a hash"
    source: ClassVar[str] = "CAFE (offline split), doi 10.1145/3639306"
    levers: ClassVar[tuple[str, ...]] = ("sharing", "precision")
    trains_small: ClassVar[bool] = True
    ranks: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, self._fields(spec))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return fresh_table(spec, self._fields(spec), generator, optimizer)

    def _fields(self, spec: TableSpec) -> Fields:
        large = [field for field in spec.stats.fields if field.rows > self.small_rows]
        hot_rows = self._hot_rows(Stats(tuple(large)))
        signs = is_signs(self.grid, self.bits, spec.profile)
        return tuple(
            FieldPlan(
                field.name,
                field.rows,
                spec.dim,
                self._segments(field.rows, hot_rows.get(field.name, field.rows), spec.dim, number, signs),
            )
            for number, field in enumerate(spec.stats.fields)
        )

    def _hot_rows(self, large: Stats) -> dict[str, int]:
        """By name of a large field, how many of its first rows are stored as they are."""
        if not large.fields:
            return {}
        share = self.ratio * (1 - self.hashed)
        kept = most_frequent_rows(large, share)
        return {field.name: rows for field, rows in zip(large.fields, kept, strict=True)}

    def _segments(self, rows: int, hot: int, dim: int, number: int, signs: bool) -> tuple[Segment, ...]:
        cold = rows - hot
        # of R rows, ratio * hashed R are for the cold ones, and there are at most R of these
        stored = math.ceil(self.ratio * self.hashed * cold)
        if stored >= cold:
            return (stored_segment(0, rows, dim, self.bits, number, signs=signs),)
        return (
            stored_segment(0, hot, dim, self.bits, number, signs=signs),
            stored_segment(hot, rows, dim, self.bits, number, stored, signs=signs),
        )
