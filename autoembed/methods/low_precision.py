"""Low-precision training: rows are held in 16 or 8 bits while they are trained, and rounded by chance.

Zhang, Yang and Yuen, "Training with low-precision embedding tables", Systems for ML workshop at NeurIPS
2018. A step reads the rows of its look-ups, updates them in float32, and casts them back so that the
expectation of the stored value is the float32 one. Rounding to the nearest instead loses every change of
less than half a spacing: with a small learning rate training stalls.

Departs from the paper, whose generator is not known to us: bits come from Philox4x32-10, keyed by (seed,
step, row, column), so that a row rounds alike on every device and whatever else the batch holds. Optimizer
state stays in float32. Rows of 8 bits, which the paper has not, take a step of their own, so only hardware
profiles with a scale in each row store them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Method, Table, TableSpec, knob, unread_rows
from autoembed.methods.low_rows import LowRows
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, own, plan_bytes
from autoembed_kernels.low_row_update import row_steps, to_codes
from autoembed_kernels.row_update import RowOptimizer

_DTYPES = {"int8": torch.int8, "fp16": torch.float16, "bf16": torch.bfloat16}
_CHUNK_ROWS = 1 << 16  # first values are drawn in pieces of so many float32 rows


@dataclass(frozen=True)
class LowPrecision(Method):
    """One row of 16-bit floats or 8-bit codes per id, in training as in the file."""

    format: str = knob("fp16", Choice(("int8", "fp16", "bf16")), "of the stored values")
    rounding: str = knob("stochastic", Choice(("stochastic", "nearest")), "of rows after their update")

    name: ClassVar[str] = "low_precision"
    summary: ClassVar[str] = "rows held in 16 or 8 bits while training, rounded by chance"
    source: ClassVar[str] = "low-precision embedding tables, Systems for ML workshop at NeurIPS 2018"
    levers: ClassVar[tuple[str, ...]] = ("precision",)
    trains_small: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(_plan(spec, self.format)).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return LowPrecisionTable(self, spec, generator, optimizer)


def _plan(spec: TableSpec, precision: str) -> Plan:
    if precision == "int8" and spec.profile.row_scale_bytes == 0:
        raise ValueError(
            f"profile {spec.profile.name!r} cannot store a scale in each row, which low_precision needs for "
            "int8; take fp16 or bf16, or a profile with row scales"
        )
    fields = tuple(
        FieldPlan(field.name, field.rows, spec.dim, (own(0, field.rows, spec.dim, precision),))
        for field in spec.stats.fields
    )
    return Plan(spec.profile, fields)


class LowPrecisionTable(Table):
    """What the forward pass reads is what is stored, bit for bit."""

    def __init__(
        self, method: LowPrecision, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        super().__init__(spec)
        self.method = method
        weight = torch.empty(spec.stats.rows, spec.dim, dtype=_DTYPES[method.format])
        steps = None
        if method.format == "int8":
            steps = torch.empty(len(weight), dtype=torch.float16)
        for start in range(0, len(weight), _CHUNK_ROWS):
            chunk = weight[start : start + _CHUNK_ROWS]
            values = torch.empty(chunk.shape).normal_(0.0, spec.initial_std, generator=generator)
            if steps is not None:
                found = row_steps(values)
                steps[start : start + _CHUNK_ROWS] = found.squeeze(1)
                values = to_codes(values, found, None)
            chunk.copy_(values)
        weight[unread_rows(spec.stats)] = 0
        seed = int(torch.randint(2**62, (), generator=generator))
        self.rows = LowRows(weight, optimizer, seed if method.rounding == "stochastic" else None, steps)

    def values(self, lookup: Lookup) -> Tensor:
        return self.rows.look_up(lookup.rows)

    def update(self, learning_rate: float) -> None:
        self.rows.update(learning_rate)

    def plan(self) -> Plan:
        return _plan(self.spec, self.method.format)

    @torch.no_grad()
    def pack(self) -> Packed:
        firsts = self.spec.stats.first_rows

        def rows_of(field: int, segment: Segment) -> SegmentRows:
            rows = slice(firsts[field], firsts[field] + segment.stop)
            steps = self.rows.steps
            if steps is None:
                return SegmentRows(self.rows.weight[rows])
            scale = steps[rows].float()
            return SegmentRows(self.rows.weight[rows].float() * scale.unsqueeze(1), scale)

        return pack(self.plan(), rows_of)

    @property
    def training_bytes(self) -> int:
        return self.rows.nbytes
