"""MPE under a byte budget: widths are learned with the file's size as a constraint, not as a penalty.

The groups, the mixture of widths, the quantizer and the retraining are those of `mpe` (arXiv:2409.20305).
What replaces its lambda, which has to be tuned per data set and hits a size by chance, is ours:

1. Search: with v = expected bytes / budget - 1 the loss gains (max(0, m + r v)^2 - m^2) / (2 r), an augmented
   Lagrangian; every 100 steps m <- max(0, m + r v), and r doubles where v is positive and did not shrink.
   Bytes are those of the rows, n_g D b / 8 of a group, where MPE weighs bits by 1 / frequency.
2. Settle: every group starts from MPE's choice, the largest width that holds half of an equal share. While
   the file is above the budget, the group steps down whose mixture objects least per byte saved, the loss of
   a width being -log of its share; widths that hold half of an equal share go first. The budget holds to the
   byte, whatever was learned.
3. Retrain as `mpe` does.

The mixture moves by learning rate / tau per step: tau is 0.05 here, a tenth or less of MPE's speed.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.methods.base import Float, Int, Method, TableSpec, knob
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.mpe import FrequencyGroups, Mpe, MpeTable
from autoembed.methods.plans import fields_bytes
from autoembed_kernels.row_update import RowOptimizer

UPDATE_STEPS = 100  # between two updates of the multiplier
FIRST_RATE = 0.1  # r of the augmented Lagrangian
LARGEST_RATE = 1e4


@dataclass(frozen=True)
class MpeBudget(Method):
    """Mixed precision over frequency groups within a share of full precision's bytes."""

    ratio: float = knob(1 / 16, Float(1e-4, 0.5, log=True), "bytes of the file per byte of full precision's")
    groups: int = knob(128, Int(1, 4096, log=True), "frequency groups of equal size over all fields")
    tau: float = knob(0.05, Float(1e-4, 1.0, log=True), "temperature of the mixture of widths")

    name: ClassVar[str] = "mpe_budget"
    summary: ClassVar[str] = "as mpe, with the bytes of the file as a constraint"
    source: ClassVar[str] = "MPE, arXiv:2409.20305, under an augmented Lagrangian of ours"
    levers: ClassVar[tuple[str, ...]] = ("rows", "precision")
    ranks: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        low = Mpe(groups=self.groups).footprint(spec)
        budget, least = self.budget(spec), _least(spec, self.groups)
        if budget < least:
            raise ValueError(
                f"mpe_budget cannot store these fields in profile {spec.profile.name!r} within {budget:,} "
                f"bytes, ratio {self.ratio:g}: without a row the file takes {least:,}; raise the ratio"
            )
        return Footprint(low.low_bytes, min(low.high_bytes, budget))

    def budget(self, spec: TableSpec) -> int:
        """Bytes that the file may have."""
        return int(self.ratio * FullPrecision().footprint(spec).high_bytes)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> "MpeBudgetTable":
        return MpeBudgetTable(self, spec, generator, optimizer)


def _least(spec: TableSpec, count: int) -> int:
    """Bytes of the file in which all groups take 0 bits."""
    groups = FrequencyGroups.of(spec.stats, count)
    return fields_bytes(spec, groups.fields(spec, np.zeros(groups.count, dtype=np.int64)))


class MpeBudgetTable(MpeTable):
    """The mixture of `mpe` under a multiplier that the bytes drive."""

    def __init__(
        self, method: MpeBudget, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        method.footprint(spec)  # refuses a budget that nothing meets
        super().__init__(Mpe(groups=method.groups, tau=method.tau), spec, generator, optimizer)
        self.budget = method.budget(spec)
        rows = np.diff(np.append(self.groups.starts, spec.stats.rows))
        group_rows = np.bincount(self.groups.group_of_run, weights=rows, minlength=self.groups.count)
        # what the directory and the header leave for rows, were no group pruned
        room = max(self.budget - _least(spec, method.groups), 1)
        share = torch.from_numpy(group_rows).float() * spec.dim / 8 / room
        self.register_buffer("share", share, persistent=False)  # (G,): of the budget, per bit
        self.multiplier, self.rate, self.last_excess = 0.0, FIRST_RATE, float("inf")

    share: Tensor

    def excess(self) -> Tensor:
        """Expected bytes of the rows over those that the budget leaves for them, less one."""
        return (self.mixture() @ self.bits * self.share).sum() - 1.0

    def penalty(self) -> Tensor | None:
        if self.settled is not None:
            return None
        pushed = (self.multiplier + self.rate * self.excess()).clamp(min=0.0)
        return (pushed.square() - self.multiplier**2) / (2 * self.rate)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        if self.settled is not None or step % UPDATE_STEPS:
            return
        excess = float(self.excess())
        self.multiplier = max(0.0, self.multiplier + self.rate * excess)
        if excess > 0 and excess >= self.last_excess:
            self.rate = min(2 * self.rate, LARGEST_RATE)
        self.last_excess = excess

    @torch.no_grad()
    def chosen_bits(self) -> np.ndarray:
        """Widths by group (G,) whose file is within the budget."""
        widths = self.bits.cpu().numpy().astype(np.int64)
        mixture = self.mixture().double().cpu().numpy()
        held = mixture >= 1 / (2 * mixture.shape[1])
        loss = -np.log(np.maximum(mixture, 1e-30))
        chosen = np.where(held, np.arange(len(widths)), 0).max(axis=1)
        rows_bytes = self.share.double().cpu().numpy()
        groups = np.arange(len(chosen))
        while fields_bytes(self.spec, self.groups.fields(self.spec, widths[chosen])) > self.budget:
            lower = np.arange(len(widths)) < chosen[:, None]
            saved = (widths[chosen][:, None] - widths) * rows_bytes[:, None]
            cost = (loss - loss[groups, chosen][:, None]) / np.maximum(saved, 1e-30)
            open_ = lower & held if (lower & held).any() else lower
            cost = np.where(open_, cost, np.inf)
            group, width = np.unravel_index(int(cost.argmin()), cost.shape)
            chosen[group] = width
        found: np.ndarray = widths[chosen]
        return found
