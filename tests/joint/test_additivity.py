"""Ranks of plans: Spearman's correlation by hand, random plans that keep their sizes, a small real check."""

import pytest
import torch
from joint.priced import CHOICES, GROUPS, calibrated

from autoembed.joint.additivity import (
    Additivity,
    cheapest_plan,
    check_additivity,
    random_plans,
    spearman,
)
from autoembed.joint.plan_reader import PlanReader
from autoembed.plan import BITS


def sizes() -> torch.Tensor:
    stored = {"own": 1.0, "hashed": 0.25, "one": 0.0, "zero": 0.0}
    return torch.tensor(
        [
            [(g.stop - g.start) * stored[c.sharing] * c.dim * BITS[c.precision] / 8 for c in CHOICES]
            for g in GROUPS
        ],
        dtype=torch.float64,
    )


def test_rank_correlation_by_hand():
    assert spearman([1, 2, 3, 4], [10, 100, 1000, 1e9]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    # ranks 0 1.5 1.5 3 against 0 1 2 3: covariance 4.5 of sqrt(4.5 * 5)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_the_cheapest_plan_keeps_its_budget_and_a_plan_of_no_bytes_exists():
    _, _, prices, _ = calibrated()
    numbers = torch.arange(len(GROUPS))
    for budget in (0.0, 100.0, 2000.0, 1e6):
        plan = cheapest_plan(prices, sizes(), budget)
        assert float(sizes()[numbers, plan].sum()) <= budget
    assert not float(prices[numbers, plan].sum())


def test_predictions_rank_measured_plans_and_a_poor_ranking_is_told():
    held, sensitivity, prices, calibration = calibrated()
    after = calibration.apply(CHOICES, prices)
    plans = random_plans(after, sizes(), 20, torch.Generator().manual_seed(1))
    found = check_additivity(held, PlanReader(held.weight, sensitivity, GROUPS), CHOICES, after, plans)
    assert len({tuple(plan.tolist()) for plan in plans}) > 10
    assert found.spearman > 0.8
    assert not found.is_poor
    assert Additivity((1.0, 2.0), (2.0, 1.0), -1.0).is_poor


def test_a_plan_of_the_finest_choices_costs_nothing():
    held, sensitivity, prices, _ = calibrated()
    finest = next(n for n, c in enumerate(CHOICES) if c.precision == "fp32" and c.dim == 8)
    plan = torch.full((len(GROUPS),), finest)
    reader = PlanReader(held.weight, sensitivity, GROUPS)
    found = check_additivity(held, reader, CHOICES, prices, [plan, plan])
    assert found.measured == pytest.approx((0.0, 0.0), abs=1e-7)
    assert found.predicted == (0.0, 0.0)
