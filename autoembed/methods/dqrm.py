"""DQRM: codes of few bits whose scale follows the table's largest value, refreshed now and then.

Zhou et al., "DQRM: deep quantized recommendation models", arXiv:2410.20046. Quantization-aware training with
one symmetric scale per table, taken from the table's range instead of learned; scanning a table costs more
than a step, so the scale is refreshed every `period` steps only. The headline is INT4 without loss.

Departs from the paper: its quantization of gradients between machines and of the network is left out; a scale
is per field; float32 rows are held while training, as there.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from autoembed.budget import Footprint
from autoembed.methods.base import Choice, Int, Method, Table, TableSpec, initial_table, knob
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.plans import Fields, fixed_footprint, placed_segments, uniform_fields
from autoembed_kernels.lsq import Grid
from autoembed_kernels.row_update import RowOptimizer


@dataclass(frozen=True)
class Dqrm(Method):
    """Codes of `bits` bits for every id, with a scale from the range."""

    bits: int = knob(4, Choice((2, 3, 4, 8)), "bits of every code")
    period: int = knob(200, Int(1, 100_000, log=True), "steps between two looks at the range of the tables")

    name: ClassVar[str] = "dqrm"
    summary: ClassVar[str] = "codes of one width with a scale from each table's range"
    source: ClassVar[str] = "DQRM, arXiv:2410.20046"
    levers: ClassVar[tuple[str, ...]] = ("precision",)

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, uniform_fields(spec, self.bits))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        fields = uniform_fields(spec, self.bits)
        return DqrmTable(spec, fields, initial_table(spec, generator), optimizer, self.period)


class DqrmTable(FixedPlanTable):
    """Steps are not learned: they are the range over the number of levels on one side."""

    def __init__(
        self, spec: TableSpec, fields: Fields, weight: torch.Tensor, optimizer: RowOptimizer, period: int
    ) -> None:
        super().__init__(spec, fields, weight, optimizer)
        self.period = period
        steps = self.precision.steps
        assert steps is not None
        del self.precision.steps  # no longer a parameter, which an optimizer would move
        self.precision.register_buffer("steps", steps.detach().clone())
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take the steps from the rows as they are."""
        steps = self.precision.steps
        assert steps is not None
        for _, segment, first in placed_segments(self.fields):
            grid = Grid(segment.bits, segment.mid_rise)
            largest = self.rows.weight[first : first + segment.stored_rows].abs().max()
            assert segment.scale is not None
            steps[segment.scale] = largest.clamp(min=1e-8) / (grid.highest + grid.shift)

    def after_step(self, step: int) -> None:
        if step % self.period == 0:
            self.refresh()
