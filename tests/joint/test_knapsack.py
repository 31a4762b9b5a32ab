"""The solver against every assignment there is, and against HiGHS; never above a budget."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from autoembed.joint.knapsack import solve
from autoembed.joint.problem import Problem


def problem(seed: int, groups: int, choices: int, *, runs: bool, fields: int = 1) -> Problem:
    """Costs as they are: more bytes lose less, with noise; some choices are forbidden, the first never."""
    random = np.random.default_rng(seed)
    rows = random.integers(1, 200, groups)
    sizes = np.sort(random.integers(0, 64, (groups, choices)), axis=1) * rows[:, None]
    losses = random.lognormal(-3, 2, (groups, 1)) * np.exp(-sizes / rows[:, None] / 10)
    losses = losses * random.lognormal(0, 0.3, losses.shape)
    losses[:, 1:][random.random((groups, choices - 1)) < 0.1] = np.inf
    return Problem(
        losses,
        sizes.astype(np.int64),
        (random.integers(16, 21, (1, choices)).repeat(groups, 0) if runs else np.zeros_like(sizes)),
        random.random(choices) < 0.8,
        np.sort(random.integers(0, fields, groups)),
        int(random.integers(0, 300)),
    )


def slow_bytes(given: Problem, chosen: tuple[int, ...]) -> int:
    total = given.fixed
    for g, c in enumerate(chosen):
        total += int(given.sizes[g, c])
        goes_on = (
            g > 0 and given.field[g] == given.field[g - 1] and chosen[g - 1] == c and bool(given.joins[c])
        )
        total += 0 if goes_on else int(given.run[g, c])
    return total


def every_assignment(given: Problem) -> list[tuple[int, float]]:
    """Bytes and loss of all assignments without a forbidden choice, which may be the smallest."""
    groups, choices = given.losses.shape
    found = [
        (slow_bytes(given, chosen), sum(given.losses[g, c] for g, c in enumerate(chosen)))
        for chosen in itertools.product(range(choices), repeat=groups)
    ]
    return [(size, loss) for size, loss in found if np.isfinite(loss)]


@given(st.integers(0, 10_000), st.booleans(), st.floats(0.0, 1.0))
@settings(deadline=None, max_examples=40)
def test_small_cases_are_within_the_gap_of_the_best_of_all_assignments(
    seed: int, runs: bool, share: float
) -> None:
    given_problem = problem(seed, 5, 4, runs=runs, fields=2)
    everything = every_assignment(given_problem)
    least, most = min(size for size, _ in everything), max(size for size, _ in everything)
    budget = int(least + share * (most - least))
    (found,) = solve(given_problem, [budget])
    best = min(loss for size, loss in everything if size <= budget)
    assert found.bytes == slow_bytes(given_problem, tuple(found.chosen.tolist())) <= budget
    assert found.loss == pytest.approx(given_problem.loss_of(found.chosen))
    assert found.bound <= best * (1 + 1e-9) + 1e-12
    assert best <= found.loss * (1 + 1e-9) and found.loss <= best * 1.006 + 1e-12


def test_three_hundred_groups_meet_the_bound_of_the_linear_program() -> None:
    given_problem = problem(3, 300, 76, runs=False, fields=10)
    finite = np.isfinite(given_problem.losses)
    cheapest = sum(int(given_problem.sizes[g, finite[g]].min()) for g in range(300))
    most = sum(int(given_problem.sizes[g, finite[g]].max()) for g in range(300))
    budgets = [given_problem.fixed + int(cheapest + (most - cheapest) / 2**k) for k in range(1, 13)]
    started = time.process_time()
    found = solve(given_problem, budgets)
    assert time.process_time() - started < 3.0  # half a second where nothing else runs
    places = np.flatnonzero(finite.ravel())
    groups = places // 76
    pick_one = np.zeros((300, len(places)))
    pick_one[groups, np.arange(len(places))] = 1
    for budget, solution in list(zip(budgets, found, strict=True))[::4]:
        exact = milp(
            given_problem.losses.ravel()[places],
            constraints=[
                LinearConstraint(pick_one, 1, 1),
                LinearConstraint(given_problem.sizes.ravel()[places], 0, budget - given_problem.fixed),
            ],
            integrality=np.zeros(len(places)),
            bounds=Bounds(0, 1),
        )
        assert solution.bytes <= budget
        assert solution.bound <= exact.fun * (1 + 1e-6)
        assert solution.loss <= exact.fun * 1.005  # half a percent above the linear program


def test_more_bytes_never_lose_more_and_cost_less_each() -> None:
    given_problem = problem(7, 120, 20, runs=True, fields=6)
    budgets = [40_000, 60_000, 120_000, 240_000]
    found = solve(given_problem, budgets)
    losses = [solution.loss for solution in found]
    prices = [solution.shadow_price for solution in found]
    assert losses == sorted(losses, reverse=True) and prices == sorted(prices, reverse=True)


def test_a_budget_below_the_smallest_plan_names_it() -> None:
    given_problem = problem(1, 4, 3, runs=True)
    least = min(size for size, loss in every_assignment(given_problem) if np.isfinite(loss))
    (found,) = solve(given_problem, [least])
    assert found.bytes == least
    with pytest.raises(ValueError, match=f"below the smallest plan of these groups, {least:,} bytes"):
        solve(given_problem, [least - 1])


def test_what_is_negligible_is_not_repaired() -> None:
    given_problem = problem(12, 6, 40, runs=True)
    budgets = range(2000, 20_000, 1500)
    plain, spared = (solve(given_problem, budgets, negligible=gap) for gap in (0.0, 9.0))
    assert all(a.loss <= b.loss * (1 + 1e-12) for a, b in zip(plain, spared, strict=True))
    assert any(a.loss < b.loss for a, b in zip(plain, spared, strict=True))
