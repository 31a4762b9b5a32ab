"""What the solver of the joint search is asked and what it answers: choices, losses, bytes, runs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Problem:
    """losses (G, C), infinite where a choice is forbidden; sizes (G, C) and run (G, C) in bytes; field (G,).

    `joins` (C,) tells whether neighbours with that choice become one segment. `fixed` bytes come on top.
    """

    losses: Numbers
    sizes: Whole
    run: Whole
    joins: np.ndarray[Any, np.dtype[np.bool_]]
    field: Whole
    fixed: int

    def bytes_of(self, chosen: Whole) -> int:
        """Bytes of one choice per group (G,)."""
        groups = np.arange(len(chosen))
        return self.fixed + int(
            self.sizes[groups, chosen].sum() + self.run[groups, chosen][self.begins(chosen)].sum()
        )

    def begins(self, chosen: Whole) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether each group begins a run."""
        begins = np.ones(len(chosen), dtype=bool)
        same = (chosen[1:] == chosen[:-1]) & (self.field[1:] == self.field[:-1]) & self.joins[chosen[1:]]
        begins[1:] = ~same
        return begins

    def loss_of(self, chosen: Whole) -> float:
        return float(self.losses[np.arange(len(chosen)), chosen].sum())


@dataclass(frozen=True)
class Solution:
    """chosen (G,); `bound`: below every loss within the budget; `shadow_price`: loss per byte."""

    budget: int
    chosen: Whole
    bytes: int
    loss: float
    bound: float
    shadow_price: float
