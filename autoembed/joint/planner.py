"""The walk's planner: price every choice at the weights as they are, calibrate, solve, write the plan."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autoembed.evaluate import EVALUATION_BATCH
from autoembed.joint.additivity import Additivity, check_additivity, random_plans
from autoembed.joint.calibration import Calibration, calibrate
from autoembed.joint.choices import Choice, menu, small_fields
from autoembed.joint.codebooks import Codebooks
from autoembed.joint.file_budget import FileBudget
from autoembed.joint.groups import Group, groups_of
from autoembed.joint.plan_reader import PlanReader
from autoembed.joint.prices import price
from autoembed.joint.problem import Problem, Solution
from autoembed.joint.sensitivity import Sensitivity, measure_sensitivity
from autoembed.joint.swaps import HeldOut
from autoembed.joint.trunk import Trunk
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Codes, Fields
from autoembed.plan import Sharing
from autoembed.training_loop import Examples

PRICED_EXAMPLES = 65_536  # of the train split; a group's sum over them is unbiased, whatever rows they meet
REPRICED_EXAMPLES = 32_768  # other ones, at later weights
TRUNK_SHARE = 0.5  # of the sums at the trunk's weights that later ones go on with, for rows of the long tail
HELD_OUT_EXAMPLES = 8_192  # of the valid split, for calibration
FAR = 0.1  # of log loss
CHECKED_PLANS = 10  # random ones, priced and measured
CHECKED_EXAMPLES = 4_096  # of the valid split behind those of the calibration, where it has as many


@dataclass(frozen=True)
class Planned:
    """What the planner decided for one budget: choices by group, the priced problem, the solution.

    `rank_correlation` of prices and measured losses over random plans; `used_fallback`: see JointPlanner.
    `seconds` of the processor that planning took, codes included, the first plan's with the calibration. What
    a look at a smaller budget's plan (goal.py) or a plan that was dropped (walk.py) took is not in it.
    """

    groups: tuple[Group, ...]
    choices: tuple[Choice, ...]
    problem: Problem
    solution: Solution
    rank_correlation: float
    used_fallback: bool
    seconds: float = 0.0


class JointPlanner:
    """Called by the walk once per budget. `last` explains the latest plan.

    Prices are calibrated once, at the trunk's weights: what a kind of choice costs beyond its price carries
    over to later ones. `additivity` tells how well calibrated prices rank random plans; where that is poor,
    every choice of every group is measured in place of one of each kind (`used_fallback`).
    """

    def __init__(self, data: Examples, spec: TableSpec, trunk: Trunk, seed: int) -> None:
        self.data, self.spec, self.trunk, self.seed = data, spec, trunk, seed
        self.groups = groups_of(spec.stats)
        self.choices = menu(spec)
        self.last: Planned | None = None
        self.calibration: Calibration | None = None
        self.additivity: Additivity | None = None
        self.used_fallback = False
        self._whole: frozenset[int] | None = None
        self._at_trunk: Sensitivity | None = None
        self._priced: tuple[Tensor, Tensor] | None = None
        self._seen: tuple[Tensor, int] | None = None  # the very tensor that was priced, and its version then
        self._codebooks: Codebooks | None = None
        self._coded: dict[tuple[int, int, int, int], Tensor] = {}  # of the last plan, at these weights
        self._files = FileBudget(spec, self.groups, self.choices)
        self._allowed = torch.from_numpy(self._files.allowed.copy())

    def __call__(self, rows: Tensor, network: nn.Module, budgets: Sequence[int]) -> list[Fields]:
        """The plan of the first budget; the smaller ones are planned when the walk is there.

        Weights that did not change since the last call, because no step was taken, are not priced again.
        """
        started = time.process_time()
        if self._whole is None:  # the same for all budgets, so that neighbours differ in what matters
            self._leave_alone(small_fields(self.spec, min(budgets)))
        calibration = self.calibration or self._calibrate(rows.device)
        if self._priced is None or not self._are_priced(rows):
            # the same examples at all budgets: a walk that goes on prices as one that was not cut off
            self._seen = None  # nothing holds the rows of the last plan while new ones are priced
            newer = self._sensitivity(rows, network, REPRICED_EXAMPLES, self.seed + 1)
            assert self._at_trunk is not None
            found = newer.going_on_from(self._at_trunk, TRUNK_SHARE)
            kept = rows.clone()
            self._codebooks, self._coded = Codebooks(kept, found), {}
            prices = price(rows, found, self.groups, self.choices, codebooks=self._codebooks)
            self._priced, self._seen = (kept, prices), (rows, rows._version)
        losses = self._allowed_only(calibration.apply(self.choices, self._priced[1]))
        fields = self._solved(losses, budgets[0])
        assert self.last is not None
        self.last = replace(self.last, seconds=time.process_time() - started)
        return [fields]

    def codes(self, rows: Tensor, fields: Fields) -> Codes:
        """The codes of a plan's segments that read a codebook, by the weights and prices of the last plan."""
        if self._codebooks is None or not self._are_priced(rows):
            raise ValueError("codes are asked for at the weights of the last plan, after it was made")
        started = time.process_time()
        coded: dict[tuple[int, int, int, int], Tensor] = {}
        for number, field in enumerate(fields):
            for s in (s for s in field.segments if s.sharing is Sharing.CODEBOOK):
                key = number, s.start, s.stop, s.stored_rows
                known = self._coded.get(key)
                coded[key] = self._codebooks.codes(*key) if known is None else known
        self._coded = coded
        if self.last is not None:
            taken = time.process_time() - started
            self.last = replace(self.last, seconds=self.last.seconds + taken)
        return {(field, start): codes for (field, start, _, _), codes in coded.items()}

    def metrics(self) -> list[Tensor] | None:
        """(D, D) of every field: how the loss minds changes of its rows, at the weights of the last plan.

        None where that plan is predicted to cost more than FAR: the gradients that these sum up are those of
        rows before they change, and are others by then.
        """
        if self._codebooks is None or self.last is None or self.last.solution.loss > FAR:
            return None
        return [metric.turned @ metric.turned.T for metric in self._codebooks.metrics]

    def _are_priced(self, rows: Tensor) -> bool:
        """Whether the last prices are those of these rows. A table is not compared twice with itself."""
        if self._seen is not None and self._seen[0] is rows and self._seen[1] == rows._version:
            return True
        same = self._priced is not None and torch.equal(self._priced[0], rows)
        if same:
            self._seen = rows, rows._version
        return same

    def _leave_alone(self, fields: frozenset[int]) -> None:
        """Keep these fields in float32, whatever the budget."""
        self._whole = fields
        finest = [
            c.sharing == "own" and c.dim == self.spec.dim and c.precision == "fp32" for c in self.choices
        ]
        for number, group in enumerate(self.groups):
            if group.field in fields:
                self._allowed[number] &= torch.tensor(finest)

    def _sensitivity(self, rows: Tensor, network: nn.Module, examples: int, seed: int) -> Sensitivity:
        batches = self.data.batches("train", EVALUATION_BATCH, shuffle_seed=seed)
        first = tuple(self.spec.stats.first_rows)
        return measure_sensitivity(network, rows, first, batches, max_examples=examples)

    def _allowed_only(self, losses: Tensor) -> Tensor:
        return torch.where(self._allowed, losses, float("inf"))

    def _calibrate(self, device: torch.device) -> Calibration:
        """At the trunk's weights, with its check; measured more finely where the check is poor."""
        rows = self.trunk.rows.to(device)
        network = copy.deepcopy(self.trunk.network).to(device).eval()
        found = self._sensitivity(rows, network, PRICED_EXAMPLES, self.seed)
        codebooks = Codebooks(rows, found)
        raw = price(rows, found, self.groups, self.choices, codebooks=codebooks)
        self._at_trunk, self._priced, self._codebooks = found, (rows, raw), codebooks
        reader = PlanReader(rows, found, self.groups, codebooks)
        held, checked = self._held_out(rows, network)
        sizes = torch.from_numpy(self._files.sizes).double()
        for every_choice in (False, True):
            self.calibration = calibrate(held, reader, self.choices, raw, every_choice=every_choice)
            prices = self._allowed_only(self.calibration.apply(self.choices, raw))
            plans = random_plans(prices, sizes, CHECKED_PLANS, torch.Generator().manual_seed(self.seed))
            self.additivity = check_additivity(checked, reader, self.choices, prices, plans)
            self.used_fallback = every_choice
            if not self.additivity.is_poor:
                break
        assert self.calibration is not None
        return self.calibration

    def _held_out(self, rows: Tensor, network: nn.Module) -> tuple[HeldOut, HeldOut]:
        """Examples of the valid split to calibrate on and, of what is left if that is enough, to check on."""
        first = tuple(self.spec.stats.first_rows)
        batches = self.data.batches("valid", CHECKED_EXAMPLES)
        held = HeldOut(network, rows, first, batches, max_examples=HELD_OUT_EXAMPLES)
        left = next(batches, None)
        if left is None or len(left) < CHECKED_EXAMPLES:
            return held, held
        return held, HeldOut(network, rows, first, [left], max_examples=CHECKED_EXAMPLES)

    def _solved(self, losses: Tensor, budget: int) -> Fields:
        numbers = losses.numpy()
        solution = self._files.best(numbers, budget)
        ranks = float("nan") if self.additivity is None else self.additivity.spearman
        problem = self._files.problem(numbers)
        self.last = Planned(self.groups, self.choices, problem, solution, ranks, self.used_fallback)
        return self._files.fields_of(solution.chosen)


def smallest_bytes(spec: TableSpec) -> int:
    """Bytes of the least plan of all."""
    files = FileBudget(spec, groups_of(spec.stats), menu(spec))
    return files.bytes_of(files.smallest)
