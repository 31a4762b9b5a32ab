"""ALPT: rows trained as integer codes, with a learned step for every row.

Li et al., "Adaptive low-precision training for embeddings in click-through rate prediction",
arXiv:2212.05735. There is no float32 copy of a row. A step reads the codes c of its rows as values c s,
updates these in float32 to w, learns the row's step s by the gradient of the loss through the quantizer at
w, and casts w / s to codes by chance.

Departs from the paper, which runs the batch a second time on the new rows to get the gradient of s: the
gradient g of the values from the first run is used at w, which saves the second pass and is off by one step
of the rows,

    dL / ds = <g, q(w / s)>,      q(u) = round(u) - u within the codes, the code at the end beyond.

A step moves by a share of itself, s <- s exp(-step_rate cos(g, q)), and is never so small that the largest
value of its row loses more than a fifth: with one absolute rate, as in the open re-implementation, rows that
start small and are seen once never reach their size (epinions, 8 bits: .731 of test AUC, .746 this way).
Steps start at the rows' largest value over the largest code, are float32 while training and cut to 8
significant bits at the end, which is what files hold; only profiles with a scale in each row store them.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Float, Method, Table, TableSpec, knob
from autoembed.methods.code_rows import CodeRows
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, own, plan_bytes
from autoembed_kernels.dedupe import dedupe, repeat
from autoembed_kernels.row_update import RowOptimizer

CLIPPED = 1.25  # times the largest code: what a row's largest value may be in steps
_LEAST = 2.0**-14  # a step below this is no normal number in half precision


@dataclass(frozen=True)
class Alpt(Method):
    """Codes of `bits` bits with a learned step each."""

    bits: int = knob(8, Choice((4, 8)), "bits of every code")
    step_rate: float = knob(0.02, Float(1e-5, 1.0, log=True), "share of itself that a step moves by at most")

    name: ClassVar[str] = "alpt"
    summary: ClassVar[str] = "codes of 8 or 4 bits in training, too, with a learned step in every row"
    source: ClassVar[str] = "ALPT, arXiv:2212.05735"
    levers: ClassVar[tuple[str, ...]] = ("precision",)
    trains_small: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(self.plan(spec)).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return AlptTable(self, spec, generator, optimizer)

    def plan(self, spec: TableSpec) -> Plan:
        """Raises ValueError where the profile keeps no scale in a row."""
        if spec.profile.row_scale_bytes == 0:
            raise ValueError(
                f"profile {spec.profile.name!r} cannot store a scale in each row, which alpt learns; "
                "take a profile with row scales"
            )
        fields = tuple(
            FieldPlan(field.name, field.rows, spec.dim, (own(0, field.rows, spec.dim, f"int{self.bits}"),))
            for field in spec.stats.fields
        )
        return Plan(spec.profile, fields)


class AlptTable(Table):
    """Codes and steps, both trained."""

    def __init__(
        self, method: Alpt, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        super().__init__(spec)
        self.method = method
        self.codes = CodeRows(spec, method.bits, generator, optimizer, torch.float32)
        self._pending: tuple[Tensor, Tensor] | None = None

    def values(self, lookup: Lookup) -> Tensor:
        rows, repeats = dedupe(lookup.rows, len(self.codes.weight))
        values = self.codes.read(rows)
        if torch.is_grad_enabled():
            values.requires_grad_()
            self._pending = rows, values
        return repeat(values, repeats)

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        if self._pending is None:
            return
        rows, values = self._pending
        self._pending = None
        if values.grad is None:
            return
        updated = self.codes.stepped(rows, values, values.grad, learning_rate)
        steps = self.codes.steps[rows].unsqueeze(1)
        turn = step_cosine(updated, steps, values.grad, self.codes.largest)
        least = updated.abs().amax(1, keepdim=True) / (CLIPPED * self.codes.largest)
        steps = (steps * torch.exp(-self.method.step_rate * turn)).maximum(least).clamp(min=_LEAST)
        self.codes.write(rows, updated, steps)

    @torch.no_grad()
    def settle(self) -> bool:
        """Cut steps to what files hold; codes stay."""
        # half of the last bit kept is added, so that the cut is to the nearest
        bits = self.codes.steps.view(torch.int32)
        self.codes.steps.copy_(((bits + 0x8000) & ~0xFFFF).view(torch.float32))
        return False

    def plan(self) -> Plan:
        return self.method.plan(self.spec)

    @torch.no_grad()
    def pack(self) -> Packed:
        self.settle()

        def rows_of(field: int, segment: Segment) -> SegmentRows:
            first = self.spec.stats.first_rows[field]
            rows = torch.arange(first, first + segment.stop, device=self.codes.weight.device)
            return SegmentRows(self.codes.read(rows), self.codes.steps[rows])

        return pack(self.plan(), rows_of)

    @property
    def training_bytes(self) -> int:
        """Codes, steps and the optimizer's state."""
        return sum(b.numel() * b.element_size() for b in self.buffers())


def step_slope(values: Tensor, steps: Tensor, largest: int) -> Tensor:
    """d quantized / d step (U, D) of rows (U, D) with steps (U, 1), rounding passed straight through."""
    units = values / steps
    return torch.where(units.abs() <= largest, units.round() - units, largest * units.sign())


def step_cosine(values: Tensor, steps: Tensor, gradient: Tensor, largest: int) -> Tensor:
    """(U, 1): d loss / d step over the most that it could be, in [-1, 1]; 0 where there is no gradient."""
    slope = step_slope(values, steps, largest)
    turned: Tensor = torch.cosine_similarity(gradient, slope, dim=1, eps=1e-20).unsqueeze(1)
    return turned
