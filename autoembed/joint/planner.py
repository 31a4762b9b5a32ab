"""The walk's planner: price every choice at the weights as they are, calibrate, solve, write the plan."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from autoembed.evaluate import EVALUATION_BATCH
from autoembed.joint.calibration import Calibration, calibrate
from autoembed.joint.choices import Choice, allowed, fields_of, menu, row_bytes, run_bytes
from autoembed.joint.groups import Group, groups_of
from autoembed.joint.knapsack import Problem, Solution, solve
from autoembed.joint.prices import price
from autoembed.joint.rotation import absorb_rotation, principal_rotation
from autoembed.joint.sensitivity import measure_sensitivity
from autoembed.joint.swaps import HeldOut
from autoembed.joint.trunk import Trunk
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Fields, fields_bytes, stored_plan
from autoembed.plan import plan_bytes
from autoembed.training_loop import Examples

PRICED_EXAMPLES = 65_536  # of the train split; a group's sum over them is unbiased, whatever rows they meet
HELD_OUT_EXAMPLES = 8_192  # of the valid split, for calibration


@dataclass(frozen=True)
class Planned:
    """What the planner decided for one budget: choices by group, the priced problem, the solution."""

    groups: tuple[Group, ...]
    choices: tuple[Choice, ...]
    problem: Problem
    solution: Solution


class JointPlanner:
    """Called by the walk once per budget. `last` explains the latest plan, `seconds` add up."""

    def __init__(self, data: Examples, spec: TableSpec, seed: int) -> None:
        self.data, self.spec, self.seed = data, spec, seed
        self.groups = groups_of(spec.stats)
        self.choices = menu(spec)
        self.last: Planned | None = None
        self.calibration: Calibration | None = None
        self._priced: tuple[Tensor, Tensor] | None = None
        self.seconds = 0.0
        self._allowed = torch.tensor([[allowed(g, c) for c in self.choices] for g in self.groups])

    def __call__(self, rows: Tensor, network: nn.Module, budgets: Sequence[int]) -> list[Fields]:
        """The plan of the first budget; the smaller ones are planned when the walk is there.

        Weights that did not change since the last call, because no step was taken, are not priced again.
        The calibration is that of the first call: what a kind of choice costs beyond its price carries over.
        """
        started = time.process_time()
        if self._priced is None or not torch.equal(self._priced[0], rows):
            self._priced = rows.clone(), self._prices(rows, network)
        fields = self._solved(self._priced[1], budgets[0])
        self.seconds += time.process_time() - started
        return [fields]

    def _prices(self, rows: Tensor, network: nn.Module) -> Tensor:
        """Calibrated prices (G, C) at these weights, infinite where a choice is not allowed."""
        first = tuple(self.spec.stats.first_rows)
        batches = self.data.batches("train", EVALUATION_BATCH, shuffle_seed=self.seed)
        found = measure_sensitivity(network, rows, first, batches, max_examples=PRICED_EXAMPLES)
        raw = price(rows, found, self.groups, self.choices)
        if self.calibration is None:
            batches = self.data.batches("valid", EVALUATION_BATCH)
            held = HeldOut(network, rows, first, batches, max_examples=HELD_OUT_EXAMPLES)
            self.calibration = calibrate(held, found, self.groups, self.choices, raw)
        return torch.where(self._allowed, self.calibration.apply(self.choices, raw), float("inf"))

    def _solved(self, losses: Tensor, budget: int) -> Fields:
        """The plan within the budget by the byte: the header's length is known once the plan is."""
        profile = self.spec.profile
        problem = Problem(
            losses=losses.numpy(),
            sizes=np.array([[row_bytes(profile, g, c) for c in self.choices] for g in self.groups]),
            run=np.array([[run_bytes(profile, c) for c in self.choices]] * len(self.groups)),
            joins=np.array([choice.sharing != "one" for choice in self.choices]),
            field=np.array([group.field for group in self.groups]),
            fixed=_fixed_bytes(self.spec, self.groups, self.choices),
        )
        allowance = budget
        while True:
            (solution,) = solve(problem, [allowance])
            chosen = [self.choices[number] for number in solution.chosen]
            fields = fields_of(self.spec, self.groups, chosen)
            excess = fields_bytes(self.spec, fields) - budget
            if excess <= 0:
                solution = replace(solution, budget=budget)
                self.last = Planned(self.groups, self.choices, problem, solution)
                return fields
            allowance -= excess


def _fixed_bytes(spec: TableSpec, groups: Sequence[Group], choices: Sequence[Choice]) -> int:
    """Header, directory header and field entries, of the plan that keeps everything."""
    widest = next(choice for choice in reversed(choices) if choice.sharing == "own")
    size = plan_bytes(stored_plan(spec.profile, fields_of(spec, groups, [widest] * len(groups))))
    return size.header + size.index - 16 * len(spec.stats.fields)


def smallest_bytes(spec: TableSpec) -> int:
    """Bytes of the least plan of all: row 0 of every field in its smallest form, everything else reads it."""
    groups, choices = groups_of(spec.stats), menu(spec)
    least = min(
        (choice for choice in choices if choice.sharing == "own"),
        key=lambda choice: spec.profile.row_bytes(choice.dim, choice.precision),
    )
    chosen = [choices[0] if group.start else least for group in groups]
    return fields_bytes(spec, fields_of(spec, groups, chosen))


@torch.no_grad()
def rotated(trunk: Trunk, data: Examples, spec: TableSpec, seed: int) -> Trunk:
    """The same model with more of its rows in their first dimensions, where its network allows that."""
    network = trunk.network
    batches = data.batches("train", EVALUATION_BATCH, shuffle_seed=seed)
    first = tuple(spec.stats.first_rows)
    found = measure_sensitivity(network, trunk.rows, first, batches, max_examples=PRICED_EXAMPLES)
    rotation = principal_rotation(trunk.rows, found)
    if not absorb_rotation(network, rotation, len(spec.stats.fields)):
        return trunk
    return replace(trunk, rows=trunk.rows @ rotation)
