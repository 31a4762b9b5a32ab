"""PEP in groups: learned thresholds shorten the vectors of frequency groups until the file is small enough.

"Learnable Embedding Sizes for Recommender Systems", arXiv:2101.07577.

1. Learn: dimension j of group g reads v max(0, 1 - sigmoid(s[g, j]) / spread[g, j]), where s is learned and
   spread is the root mean square of the values that would go, those of the dimensions from j on of all rows
   of the group. A dimension is cut once its threshold exceeds this, and never outlives the one before it.
2. Settle: as soon as the file of what is left fits `keep`, or where training ends before, all thresholds are
   moved together, in relation to their spreads, until the file just fits; that is the plan.
3. Retrain: rows start again from their first values (the lottery ticket), with what was cut left out; the
   network stays.

Departs from the paper, whose threshold cuts single values, |v| by |v|:
- Its survivors are scattered, and need compressed sparse rows: 4 bytes for the place of every value beside 4
  for the value, and 4 per id. Here a group keeps a prefix, which packs as dense rows and needs a few
  bytes of directory per group: at equal bytes twice the values are left, but less finely chosen.
- Spreads are measured every `REFRESH_STEPS` steps; the paper applies its threshold to all rows in every step.
- What raises thresholds is ours. The paper leaves it to the loss and to weight decay and waits for the wanted
  number of values. Here each s is pushed by its share of all values times a price, which grows by a tenth
  every `PRICE_STEPS` steps until the file fits `keep`; s moves 1 / `SPEED` times as fast as other gates.
- Kept values may be stored, and are retrained, in fewer bits. Groups are ranges of ranks of one field with
  ties of the count kept together.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Float, Method, Table, TableSpec, initial_table, knob
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.plans import Fields, fields_bytes, stored_plan, stored_segment
from autoembed.packed import Packed
from autoembed.plan import FieldPlan, Plan, Segment, Sharing
from autoembed.stats import frequency_groups
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.row_update import RowOptimizer

FIRST_LOGIT = -11.0  # of the thresholds: nothing is cut
SPEED = 0.02  # logits are gates / SPEED; Adam moves a gate by its learning rate per step
REFRESH_STEPS = 50
PRICE_STEPS = 20
PRICE_GROWTH = 1.1
DISTINCT_FROM_ZERO = 1e-12  # a spread of nothing has no logarithm

Dims = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Pep(Method):
    """Frequency groups learn how many dimensions their rows keep, within a share of the bytes."""

    keep: float = knob(1 / 8, Float(1e-4, 1.0, log=True), "bytes of the file per byte of full precision's")
    price: float = knob(1e-3, Float(1e-6, 1.0, log=True), "first price of all values, in units of the loss")
    bits: int = knob(32, Choice((2, 4, 8, 16, 32)), "bits of every kept value")

    name: ClassVar[str] = "pep"
    summary: ClassVar[str] = "learned thresholds shorten the vectors of frequency groups"
    source: ClassVar[str] = "PEP, arXiv:2101.07577, cut in groups"
    levers: ClassVar[tuple[str, ...]] = ("rows", "dimension", "precision")
    ranks: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        groups = RankGroups.of(spec)
        low = fields_bytes(spec, groups.fields(spec, groups.uniform(0), self.bits))
        budget = self.budget(spec)
        if budget < low:
            raise ValueError(
                f"pep cannot store these fields in profile {spec.profile.name!r} within {budget:,} bytes, "
                f"keep {self.keep:g}: without a value the file takes {low:,}; raise keep"
            )
        full = fields_bytes(spec, groups.fields(spec, groups.uniform(spec.dim), self.bits, merge=False))
        return Footprint(low, min(full, budget))

    def budget(self, spec: TableSpec) -> int:
        """Bytes that the file may have."""
        return int(self.keep * FullPrecision().footprint(spec).high_bytes)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> "PepTable":
        return PepTable(self, spec, generator, optimizer)


@dataclass(frozen=True)
class RankGroups:
    """Frequency groups of every field: group g is the rows [starts[g], starts[g + 1]) of all fields' rows."""

    starts: Dims
    by_field: tuple[int, ...]

    @staticmethod
    def of(spec: TableSpec) -> "RankGroups":
        starts, by_field = [], []
        for first, field in zip(spec.stats.first_rows, spec.stats.fields, strict=True):
            bounds = frequency_groups(field.counts)
            starts += [first + start for start in bounds[:-1]]
            by_field.append(len(bounds) - 1)
        return RankGroups(np.array([*starts, spec.stats.rows], dtype=np.int64), tuple(by_field))

    @property
    def count(self) -> int:
        return len(self.starts) - 1

    def uniform(self, dim: int) -> Dims:
        return np.full(self.count, dim, dtype=np.int64)

    def fields(self, spec: TableSpec, dims: Dims, bits: int, *, merge: bool = True) -> Fields:
        """The plan in which group g keeps dims[g] dimensions; neighbours that agree become one segment."""
        fields, group, step = [], 0, 0
        for first, field, count in zip(spec.stats.first_rows, spec.stats.fields, self.by_field, strict=True):
            runs: list[tuple[int, int, int]] = []
            for g in range(group, group + count):
                start, stop, dim = int(self.starts[g]) - first, int(self.starts[g + 1]) - first, int(dims[g])
                if merge and runs and runs[-1][2] == dim:
                    start = runs.pop()[0]
                runs.append((start, stop, dim))
            group += count
            segments = []
            for start, stop, dim in runs:
                if dim:
                    segments.append(stored_segment(start, stop, dim, bits, step))
                    step += 1
                else:
                    segments.append(Segment(start, stop, Sharing.ZERO))
            fields.append(FieldPlan(field.name, field.rows, spec.dim, tuple(segments)))
        return tuple(fields)


class PepTable(Table):
    """Learns thresholds over all rows; after `settle`, trains the plan that they left."""

    starts: Tensor
    share: Tensor
    spread: Tensor

    def __init__(
        self, method: Pep, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        method.footprint(spec)  # refuses a budget that nothing meets
        super().__init__(spec)
        self.method = method
        self.groups = RankGroups.of(spec)
        self.first_state = generator.get_state()
        self.rows: RowStore | None = RowStore(initial_table(spec, generator), optimizer)
        self.gates = nn.Parameter(torch.full((self.groups.count, spec.dim), FIRST_LOGIT * SPEED))
        sizes = np.diff(self.groups.starts)
        for name, values in (
            ("starts", torch.from_numpy(self.groups.starts[:-1])),
            ("share", torch.from_numpy(sizes / (spec.stats.rows * spec.dim)).float()),  # (G,): of all values
        ):
            self.register_buffer(name, values, persistent=False)
        # remembered with the rows: what is read depends on the spreads that were measured last
        self.register_buffer("spread", torch.ones(self.groups.count, spec.dim))
        self.measure()
        self.price = method.price
        self.decided: Dims | None = None
        self.settled: FixedPlanTable | None = None

    @torch.no_grad()
    def measure(self) -> None:
        """Root mean squares (G, D) over the rows of a group and the dimensions from one on."""
        assert self.rows is not None
        behind = torch.arange(self.spec.dim, 0, -1, device=self.spread.device)
        for group, (start, stop) in enumerate(itertools.pairwise(self.groups.starts.tolist())):
            squares = self.rows.weight[start:stop].square().mean(0)
            self.spread[group] = (squares.flip(0).cumsum(0).flip(0) / behind).sqrt()

    def left(self) -> Tensor:
        """(G, D): what is left of a value, 0 to 1, where the threshold has been taken off."""
        thresholds = torch.sigmoid(self.gates / SPEED)
        shrunk = (1 - thresholds / self.spread.clamp(min=DISTINCT_FROM_ZERO)).clamp(min=0.0)
        return torch.cummin(shrunk, dim=1).values

    def values(self, lookup: Lookup) -> Tensor:
        if self.settled is not None:
            return self.settled.values(lookup)
        assert self.rows is not None
        unique, weights, inverse = self.rows.gather(lookup.rows)
        group = torch.searchsorted(self.starts, unique, right=True) - 1
        return repeat(weights * self.left().index_select(0, group), inverse)

    def penalty(self) -> Tensor | None:
        """-price * sum of share * s: pushes thresholds up, hardest where most values are."""
        if self.settled is not None or self.decided is not None:
            return None
        return -self.price / SPEED * (self.gates * self.share.unsqueeze(1)).sum()

    def update(self, learning_rate: float) -> None:
        store = self.rows if self.settled is None else self.settled
        assert store is not None
        store.update(learning_rate)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        if self.settled is not None or self.decided is not None:
            return
        if step % REFRESH_STEPS == 0:
            self.measure()
        if step % PRICE_STEPS == 0:
            dims = (self.left() > 0).sum(1).cpu().numpy()
            if self._bytes(dims) <= self.method.budget(self.spec):
                self.decided = self.chosen_dims()
            else:
                self.price *= PRICE_GROWTH

    @torch.no_grad()
    def chosen_dims(self) -> Dims:
        """Dimensions by group (G,): as many as fit once all thresholds are moved by one common factor."""
        if self.decided is not None:
            return self.decided
        self.measure()
        logits = nn.functional.logsigmoid(self.gates / SPEED)
        margin = torch.log(self.spread.clamp(min=DISTINCT_FROM_ZERO)) - logits
        margins = torch.cummin(margin, dim=1).values.double().cpu().numpy()  # (G, D), falling along a row
        raises = np.unique(margins)
        # bytes fall with thresholds but for the directory, which is shortest where nothing is cut
        budget = self.method.budget(self.spec)
        if self._bytes(self.groups.uniform(self.spec.dim)) <= budget:
            return self.groups.uniform(self.spec.dim)
        low, high = 0, len(raises) - 1  # at the last one nothing is left, which fits
        while low < high:
            middle = (low + high) // 2
            if self._bytes((margins > raises[middle]).sum(1)) <= budget:
                high = middle
            else:
                low = middle + 1
        found: Dims = (margins > raises[high]).sum(1)
        return found

    def _bytes(self, dims: Dims) -> int:
        return fields_bytes(self.spec, self.groups.fields(self.spec, dims, self.method.bits))

    @torch.no_grad()
    def settle(self) -> bool:
        """Fix the dimensions and put the rows back to their first values. True: retrain."""
        if self.settled is not None:
            return False
        assert self.rows is not None
        fields = self.groups.fields(self.spec, self.chosen_dims(), self.method.bits)
        weight = initial_table(self.spec, torch.Generator().set_state(self.first_state))
        kept = [
            weight[first + segment.start : first + segment.stop]
            for first, field in zip(self.spec.stats.first_rows, fields, strict=True)
            for segment in field.segments
            if segment.stored_rows
        ]
        self.settled = FixedPlanTable(
            self.spec, fields, torch.cat([weight[:0], *kept]), self.rows.optimizer
        ).to(self.starts.device)
        self.rows = None
        del self.gates
        return True

    def plan(self) -> Plan:
        if self.settled is not None:
            return self.settled.plan()
        fields = self.groups.fields(self.spec, self.chosen_dims(), self.method.bits)
        return stored_plan(self.spec.profile, fields)

    def pack(self) -> Packed:
        """Raises ValueError before `settle`: what is cut is not fixed yet."""
        if self.settled is None:
            raise ValueError("the thresholds of pep are still moving; call settle() before pack()")
        return self.settled.pack()

    @property
    def training_bytes(self) -> int:
        """Rows with their state, groups, spreads, and the gates with the two moments of Adam."""
        if self.settled is not None:
            return self.settled.training_bytes
        assert self.rows is not None
        groups = 8 * len(self.starts) + 4 * self.share.numel() + 4 * self.spread.numel()
        return self.rows.nbytes + groups + 12 * self.gates.numel()
