"""MPE under a byte budget: widths are learned with the file's size as a constraint, not as a penalty.

The groups, the mixture of widths, the quantizer and the retraining are those of `mpe` (arXiv:2409.20305).
What replaces its lambda, which has to be tuned per data set and hits a size by chance, is ours:

1. Search: for the first 100 steps all widths keep equal shares: rows that have learned nothing are best
   pruned, and the groups that are looked up most decide first. Then the loss gains a price times the sum over
   g of w_g (sum over b of pi[g, b] b), w_g in proportion to n_g / c_g for the n_g rows of a group and its
   look-ups c_g: MPE's weights, which leave frequent groups alone. With v = expected bytes / budget - 1, the
   price is max(0, m + r v); every 20 steps m <- max(0, m + r v), and r doubles where v is positive and did
   not shrink. Bytes are those of the rows, n_g D b / 8 of a group.
2. Settle: all groups begin with the largest width. While the file is above the budget, the group whose step
   down by one width costs least per byte takes it; then, while one fits, the group whose step up would cost
   most to take back. A step's cost is its group's look-ups times the squared error added, 4^-b at b bits,
   times the share of the upper width over that of the lower, held between 1/e and e. The budget holds to the
   byte, whatever was learned, and no further step fits. The mixture has a word, not the last one: where it
   prunes frequent groups, which it does at small budgets, their look-ups win them back.
3. Retrain as `mpe` does.

The mixture moves by learning rate / tau per step: tau is 0.05 here, a tenth or less of MPE's speed. A price
on the bytes of all groups alike, and from the first step, prunes the head: frequent rows grow until the
mixture of widths no longer shrinks them, and object to nothing. So this is no gradient of an augmented
Lagrangian: its multiplier follows the bytes, what the gradient sees is the weighed bits.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.methods.base import Float, Int, Method, TableSpec, knob
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.mpe import Mpe, MpeTable, least_bytes
from autoembed_kernels.row_update import RowOptimizer

WARM_STEPS = 100  # in which shares stay equal
UPDATE_STEPS = 20  # between two updates of the multiplier
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
    source: ClassVar[str] = "MPE, arXiv:2409.20305; the constraint is ours"
    levers: ClassVar[tuple[str, ...]] = ("rows", "precision")
    ranks: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        low = Mpe(groups=self.groups).footprint(spec)
        budget, least = self.budget(spec), low.low_bytes
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
        room = max(self.budget - least_bytes(spec), 1)
        share = torch.from_numpy(group_rows).float() * spec.dim / 8 / room
        self.register_buffer("share", share, persistent=False)  # (G,): of the budget, per bit
        rarely = share / self.relative_counts
        pressure = rarely * (share.sum() / rarely.sum())
        self.register_buffer("pressure", pressure, persistent=False)  # (G,): of the price, per bit
        self.is_warm = False
        self.multiplier, self.rate, self.last_excess = 0.0, FIRST_RATE, float("inf")

    share: Tensor
    pressure: Tensor

    def mixture(self) -> Tensor:
        found = super().mixture()
        return found if self.is_warm else found.detach()

    def excess(self) -> Tensor:
        """Expected bytes of the rows over those that the budget leaves for them, less one."""
        return (self.mixture() @ self.bits * self.share).sum() - 1.0

    def penalty(self) -> Tensor | None:
        if self.settled is not None or not self.is_warm:
            return None
        price = (self.multiplier + self.rate * self.excess().detach()).clamp(min=0.0)
        return price * (self.mixture() @ self.bits * self.pressure).sum()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.is_warm = step >= WARM_STEPS
        if self.settled is not None or not self.is_warm or step % UPDATE_STEPS:
            return
        excess = float(self.excess())
        self.multiplier = max(0.0, self.multiplier + self.rate * excess)
        if excess > 0 and excess >= self.last_excess:
            self.rate = min(2 * self.rate, LARGEST_RATE)
        self.last_excess = excess

    @torch.no_grad()
    def chosen_bits(self) -> np.ndarray:
        """Widths by group (G,): the file is within the budget, and is not with one of them a step wider."""
        widths = self.bits.cpu().numpy().astype(np.int64)
        mixture = self.mixture().double().cpu().numpy()
        price = self._step_prices(widths, mixture)
        groups, top = np.arange(len(mixture)), len(widths) - 1
        chosen = np.full(len(mixture), top)
        while not self._fits(widths[chosen]):
            down = np.where(chosen > 0, price[groups, np.maximum(chosen - 1, 0)], np.inf)
            chosen[int(down.argmin())] -= 1
        grew = True
        while grew:  # a step that did not fit may, once neighbours agree and share an entry of the index
            grew, is_open = False, chosen < top
            while is_open.any():
                up = np.where(is_open, price[groups, np.minimum(chosen, top - 1)], -np.inf)
                group = int(up.argmax())
                chosen[group] += 1
                is_open[group] = self._fits(widths[chosen])
                grew |= bool(is_open[group])
                chosen[group] -= not is_open[group]
                is_open[group] &= chosen[group] < top
        found: np.ndarray = widths[chosen]
        return found

    def _step_prices(self, widths: np.ndarray, mixture: np.ndarray) -> np.ndarray:
        """Loss expected per byte, (G, B - 1), where a group steps from one of B widths to that below."""
        error = 4.0 ** -widths.astype(np.float64)
        looked_up = self.groups.relative_counts / self.share.double().cpu().numpy()
        preference = np.exp(np.clip(np.diff(np.log(np.maximum(mixture, 1e-30)), axis=1), -1.0, 1.0))
        found: np.ndarray = looked_up[:, None] * preference * -np.diff(error) / np.diff(widths)
        return found

    def _fits(self, widths: np.ndarray) -> bool:
        return self.groups.bytes(self.spec, widths) <= self.budget
