"""Frequency cut: the most frequent ids keep a row, all others read their field's out-of-vocabulary row.

The plain baseline of every pruning method: rows of all fields are ranked together by their look-ups in the
train split, ties by rank within the field. The out-of-vocabulary row is trained on all ids cut, which
need no vocabulary entry afterwards. Training holds the kept rows only.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Choice, Float, Method, Table, TableSpec, knob
from autoembed.methods.fixed_plan import fresh_table
from autoembed.methods.plans import GRIDS, Fields, fixed_footprint, is_signs, stored_segment
from autoembed.plan import FieldPlan, Segment, Sharing
from autoembed.stats import Stats
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class FrequencyCut(Method):
    """Keep the share `keep` of all rows, in codes or floats of `bits` bits."""

    keep: float = knob(0.25, Float(1e-4, 1.0, log=True), "share of all rows that is kept")
    bits: int = knob(8, Choice((1, 2, 3, 4, 8, 16, 32)), "bits of every kept value")
    grid: str = knob("steps", Choice(GRIDS), "of codes: steps, or sums of signs as bebr has them")

    name: ClassVar[str] = "frequency_cut"
    summary: ClassVar[str] = "frequent ids keep a row, the others share the out-of-vocabulary row"
    source: ClassVar[str] = "the plain baseline of every pruning method"
    levers: ClassVar[tuple[str, ...]] = ("rows", "precision")
    trains_small: ClassVar[bool] = True
    ranks: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, self._fields(spec))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return fresh_table(spec, self._fields(spec), generator, optimizer)

    def _fields(self, spec: TableSpec) -> Fields:
        kept_rows = most_frequent_rows(spec.stats, self.keep)
        signs = is_signs(self.grid, self.bits, spec.profile)
        fields = []
        for number, (field, kept) in enumerate(zip(spec.stats.fields, kept_rows, strict=True)):
            segments = [stored_segment(0, kept, spec.dim, self.bits, number, signs=signs)]
            if kept < field.rows:
                segments.append(Segment(kept, field.rows, Sharing.OOV))
            fields.append(FieldPlan(field.name, field.rows, spec.dim, tuple(segments)))
        return tuple(fields)


def most_frequent_rows(stats: Stats, share: float) -> tuple[int, ...]:
    """Per field, how many of its first rows are kept when ceil(share * R) rows are kept in all.

    Row 0 of every field is always kept; among the others the most frequent win, ties by rank in the field.
    """
    wanted = math.ceil(share * stats.rows) - len(stats.fields)
    counts = np.concatenate([field.counts[1:] for field in stats.fields])
    owner = np.concatenate([np.full(field.rows - 1, i) for i, field in enumerate(stats.fields)])
    rank = np.concatenate([np.arange(field.rows - 1) for field in stats.fields])
    order = np.lexsort((owner, rank, -counts))[: max(wanted, 0)]
    kept = 1 + np.bincount(owner[order].astype(np.int64), minlength=len(stats.fields))
    return tuple(int(rows) for rows in kept)
