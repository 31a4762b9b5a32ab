"""A choice for every group under a byte budget, for all budgets at once.

Multiple-choice knapsack in which neighbouring groups of a field with the same choice share a segment:

    minimise    sum of losses[g, c_g]
    subject to  fixed + sum of sizes[g, c_g] + sum over g that begin a run of run[g, c_g]  <=  budget

For a price mu of a byte the best choices are found exactly by dynamic programming along the groups of each
field: a group goes on with its neighbour's choice for nothing, or begins a run. All prices are solved
together. loss + mu bytes at its least, minus mu budget, is a lower bound of every feasible loss (Lagrangian
duality; without runs the bound of the linear program). Between two prices the bound decides; the bytes that
the best feasible solution leaves are filled by single changes, the best loss per byte first. Where that ends
more than 0.5 % above the bound, as with few groups or few bytes, a search over partial plans repairs it
(repair.py) until no plan is better by more than half of that.
"""

from collections.abc import Sequence

import numpy as np
import torch

from autoembed.joint.problem import Numbers, Problem, Solution, Whole
from autoembed.joint.repair import repaired
from autoembed_kernels.cheapest_runs import cheapest_runs

PRICES = 48  # of a byte, tried in the first round, and shared by all budgets in the later ones
ROUNDS = 5
GAP = 0.005  # of the loss above the bound, from which a solution is repaired
NEGLIGIBLE = 1e-6  # of mean log loss: two plans that are closer are told apart by no split


def solve(problem: Problem, budgets: Sequence[int], *, negligible: float = 0.0) -> list[Solution]:
    """The best choices found for every budget, in order, none above it.

    A loss that is at most `negligible` above the bound is not repaired.

    Raises ValueError naming the smallest size where a budget is below it.
    """
    at_least = smallest(problem)
    least = problem.bytes_of(at_least)
    for budget in budgets:
        if budget < least:
            raise ValueError(
                f"a budget of {budget:,} bytes is below the smallest plan of these groups, {least:,} bytes; "
                "raise the budget"
            )
    finite = np.where(np.isfinite(problem.losses), problem.losses, 0.0)
    steepest = max(float(finite.max()), 1e-30)
    prices = np.concatenate([[0.0], np.geomspace(steepest * 1e-12, 2 * steepest, PRICES)])
    known: dict[float, tuple[Whole, int, float]] = {}
    _add(problem, prices, known)
    for _ in range(ROUNDS):
        wanted = set()
        for budget in budgets:
            low, high = _around(known, budget)
            if low is not None:
                wanted |= set(np.linspace(low, high, 8)[1:-1].tolist())
        _add(problem, np.array(sorted(wanted - known.keys())), known)
    return [_best(problem, budget, known, at_least, negligible) for budget in budgets]


def smallest(problem: Problem) -> Whole:
    """The choices (G,) of least bytes."""
    chosen, _ = _cheapest(problem, np.array([1.0]), np.where(np.isfinite(problem.losses), 0.0, np.inf))
    return np.asarray(chosen[0])


def _add(problem: Problem, prices: Numbers, known: dict[float, tuple[Whole, int, float]]) -> None:
    if len(prices) == 0:
        return
    chosen, values = _cheapest(problem, prices, problem.losses)
    for price, row, value in zip(prices.tolist(), chosen, values.tolist(), strict=True):
        known[price] = row, problem.bytes_of(row), value


def _around(known: dict[float, tuple[Whole, int, float]], budget: int) -> tuple[float | None, float]:
    """The largest price whose solution is above the budget, and the smallest whose solution fits."""
    above = max((price for price, (_, size, _) in known.items() if size > budget), default=None)
    fits = min((price for price, (_, size, _) in known.items() if size <= budget), default=max(known))
    return above, fits


def _cheapest(problem: Problem, prices: Numbers, losses: Numbers) -> tuple[Whole, Numbers]:
    """For each price (P,) of a byte the choices (P, G) of least loss + price * bytes, and that value (P,)."""
    is_first = np.ones(len(problem.field), dtype=bool)
    is_first[1:] = problem.field[1:] != problem.field[:-1]
    arrays = (losses, problem.sizes, problem.run, problem.joins, is_first, prices)
    chosen, values = cheapest_runs(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
    return chosen.numpy(), values.numpy() + prices * problem.fixed


def _best(
    problem: Problem,
    budget: int,
    known: dict[float, tuple[Whole, int, float]],
    at_least: Whole,
    negligible: float,
) -> Solution:
    above, fits = _around(known, budget)
    bound, dual = max((value - price * budget, price) for price, (_, _, value) in known.items())
    fitting = [row for price, (row, size, _) in sorted(known.items()) if price >= fits and size <= budget]
    starts = fitting[:2] or [at_least]
    filled = [_filled(problem, budget, start) for start in starts]
    chosen = min(filled, key=problem.loss_of)
    price = 0.0 if above is None else fits
    loss = problem.loss_of(chosen)
    if loss - bound > max(GAP * loss, negligible):
        before = loss
        chosen, is_best = repaired(problem, budget, chosen, dual, tolerance=GAP / 2)
        loss = problem.loss_of(chosen)
        bound = max(bound, min(loss, before * (1 - GAP / 2))) if is_best else bound
    return Solution(budget, chosen, problem.bytes_of(chosen), loss, bound, price)


def _filled(problem: Problem, budget: int, start: Whole) -> Whole:
    """Single changes that lower the loss and fit, the best loss per byte first, until there is none."""
    chosen = start.copy()
    groups = np.arange(len(chosen))
    for _ in range(4 * len(chosen)):
        room = budget - problem.bytes_of(chosen)
        gain = problem.losses[groups, chosen][:, None] - problem.losses
        more = more_bytes(problem, chosen)
        possible = (gain > 0) & (more <= room)
        if not possible.any():
            break
        worth = np.where(possible, gain / np.maximum(more, 1), -1.0)
        g, c = np.unravel_index(int(worth.argmax()), worth.shape)
        chosen[g] = c
    return chosen


def more_bytes(problem: Problem, chosen: Whole) -> Whole:
    """(G, C): by how many bytes the file grows where one group changes its choice, runs included."""
    count, choices = problem.sizes.shape
    groups = np.arange(count)
    before, after = np.full(count, -1), np.full(count, -1)
    same = problem.field[1:] == problem.field[:-1]
    before[1:] = np.where(same, chosen[:-1], -1)
    after[:-1] = np.where(same, chosen[1:], -1)
    every = np.arange(choices)[None, :]

    def local(choice: Whole) -> Whole:
        """Bytes of each group under `choice` (G, C) and of the begin of the run behind it."""
        own = np.take_along_axis(problem.sizes, choice, 1)
        begins = ~((choice == before[:, None]) & problem.joins[choice])
        own = own + np.where(begins, np.take_along_axis(problem.run, choice, 1), 0)
        next_run = np.zeros(count, dtype=np.int64)
        next_run[:-1] = problem.run[groups[1:], chosen[1:]]
        breaks = (after >= 0)[:, None] & ~((choice == after[:, None]) & problem.joins[choice])
        return np.asarray(own + np.where(breaks, next_run[:, None], 0))

    now = local(chosen[:, None])
    return np.asarray(local(np.broadcast_to(every, (count, choices))) - now)
