"""Repaired solutions against every assignment there is."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joint.test_knapsack import every_assignment, problem, slow_bytes

from autoembed.joint.knapsack import solve
from autoembed.joint.repair import repaired


@given(st.integers(0, 10_000), st.booleans(), st.floats(0.0, 1.0), st.floats(0.0, 3.0))
@settings(deadline=None, max_examples=60)
def test_any_start_and_any_price_lead_to_the_best_of_all_assignments(
    seed: int, runs: bool, share: float, off: float
) -> None:
    asked = problem(seed, 5, 4, runs=runs, fields=2)
    everything = every_assignment(asked)
    least, most = min(size for size, _ in everything), max(size for size, _ in everything)
    budget = int(least + share * (most - least))
    (found,) = solve(asked, [budget])
    start = np.array(solve(asked, [least])[0].chosen)  # the worst there is to begin with
    chosen, is_best = repaired(asked, budget, start, found.shadow_price * off)
    best = min(loss for size, loss in everything if size <= budget)
    assert is_best
    assert slow_bytes(asked, tuple(chosen.tolist())) <= budget
    assert asked.loss_of(chosen) <= best * (1 + 1e-9)


@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.floats(0.0, 0.5))
@example(7259, 0.0, 0.0)  # where a forbidden choice is the smallest
@settings(deadline=None, max_examples=60)
def test_a_tolerance_leaves_no_plan_that_is_better_by_more(seed: int, share: float, tolerance: float) -> None:
    asked = problem(seed, 5, 4, runs=True, fields=2)
    everything = every_assignment(asked)
    least, most = min(size for size, _ in everything), max(size for size, _ in everything)
    budget = int(least + share * (most - least))
    start = np.array(solve(asked, [budget])[0].chosen)
    chosen, is_best = repaired(asked, budget, start, 0.0, tolerance=tolerance)
    best = min(loss for size, loss in everything if size <= budget)
    assert is_best
    assert asked.bytes_of(chosen) <= budget
    if best < asked.loss_of(start) * (1 - tolerance):
        assert asked.loss_of(chosen) <= best * (1 + 1e-9)
    else:
        assert asked.loss_of(chosen) <= asked.loss_of(start)


@given(st.integers(0, 1000), st.floats(0.01, 0.6))
@settings(deadline=None, max_examples=15)
def test_cut_short_it_is_never_worse_and_never_above_the_budget(seed: int, share: float) -> None:
    asked = problem(seed, 30, 12, runs=True, fields=3)
    least = solve(asked, [10**9])[0]
    smallest = int(asked.bytes_of(np.zeros(30, dtype=np.int64)))
    budget = int(smallest + share * max(least.bytes - smallest, 1))
    start = np.zeros(30, dtype=np.int64)
    chosen, _ = repaired(asked, budget, start, 0.0, width=3)
    assert asked.bytes_of(chosen) <= budget and asked.loss_of(chosen) <= asked.loss_of(start)
