"""Calibration: planted laws are found, a real small network's prices come nearer to measured swaps."""

import pytest
import torch
from joint.priced import CHOICES, DIM, GROUPS, Choice, calibrated

from autoembed.joint.calibration import _fit, calibrate, kind
from autoembed.joint.plan_reader import PlanReader


def read_everywhere(held, sensitivity, choice):
    plan = torch.full((1, len(GROUPS)), choice)
    return PlanReader(held.weight, sensitivity, GROUPS).read(CHOICES, plan, held.rows)[0]


def test_a_planted_power_law_with_kinds_and_groups_is_found():
    generator = torch.Generator().manual_seed(5)
    log_price = 2 * torch.randn(200, 3, generator=generator).double() - 5
    kinds, groups = (
        torch.tensor([0.5, 1.0, 2.0]).double(),
        0.3 * torch.randn(200, generator=generator).double(),
    )
    increase = kinds + 1.2 * log_price + groups.unsqueeze(1)
    increase[7, 1] += 30.0  # one wild swap
    found, exponent, shifts = _fit(log_price, increase, torch.ones_like(log_price), torch.arange(3))
    assert exponent == pytest.approx(1.2, abs=0.02)
    torch.testing.assert_close(found, kinds, atol=0.15, rtol=0)
    # a ridge of 1 against three swaps keeps three quarters of a group's shift
    assert float((shifts - 0.75 * groups).abs().median()) < 0.05


def test_calibrated_prices_are_nearer_to_swaps_that_were_not_measured():
    held, sensitivity, prices, calibration = calibrated()
    after = calibration.apply(CHOICES, prices)
    fresh = (calibration.residual == 0.0) & (prices > 0.0)
    measured = torch.zeros_like(prices)
    for c in range(len(CHOICES)):
        swaps = held.swaps(GROUPS, read_everywhere(held, sensitivity, c))
        measured[:, c] = torch.tensor([swap.increase for swap in swaps])
    wrong = [float((p[fresh] / measured[fresh]).log().abs().mean()) for p in (prices, after)]
    assert wrong[1] < 0.8 * wrong[0]
    assert calibration.error_after < calibration.error_before


def test_the_fallback_measures_every_choice_and_comes_nearest():
    held, sensitivity, prices, by_kind = calibrated()
    reader = PlanReader(held.weight, sensitivity, GROUPS)
    every = calibrate(held, reader, CHOICES, prices, every_choice=True)
    assert every.swaps == int((prices > 1e-10).sum()) > by_kind.swaps
    zero = CHOICES.index(Choice("zero"))
    measured = held.swaps(GROUPS, read_everywhere(held, sensitivity, zero))
    # some hundred examples see each swap, so that prices are nearly the measurements
    expected = torch.tensor([swap.increase for swap in measured], dtype=torch.float64)
    torch.testing.assert_close(every.apply(CHOICES, prices)[:, zero], expected, rtol=0.2, atol=0)


def test_prices_of_zero_stay_and_without_residuals_the_order_within_a_kind_stays():
    _, _, prices, calibration = calibrated()
    after = calibration.apply(CHOICES, prices)
    lossless = CHOICES.index(Choice("own", 1.0, DIM, "fp32"))
    assert not after[:, lossless].any()
    assert torch.isfinite(after).all()
    assert (calibration.apply(CHOICES, 2 * prices) >= after).all()


def test_the_strongest_lever_names_the_kind():
    named = [kind(choice, DIM) for choice in CHOICES]
    assert named == [*["dim 4"] * 4, "int1", "int2", "bits", "bits", "hashed", "hashed", "one", "zero"]
