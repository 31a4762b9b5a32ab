"""Calibration: planted laws are found, a real small network's prices come nearer to measured swaps."""

from dataclasses import dataclass

import pytest
import torch

from autoembed.data.batch import Batch
from autoembed.joint.calibration import _fit, calibrate, kind
from autoembed.joint.prices import price, read_rows
from autoembed.joint.sensitivity import measure_sensitivity
from autoembed.joint.swaps import HeldOut
from autoembed.models import ModelConfig, build_network

DIM, FIRST_ROWS, ROWS = 8, (0, 60), 160


@dataclass(frozen=True)
class Group:
    field: int
    start: int
    stop: int


@dataclass(frozen=True)
class Choice:
    sharing: str
    ratio: float = 1.0
    dim: int = DIM
    precision: str = "int8"


GROUPS = [Group(0, 0, 10), Group(0, 10, 30), Group(0, 30, 60), Group(1, 0, 20), Group(1, 20, 100)]
CHOICES = [
    *(Choice("own", 1.0, dim, p) for dim in (4, DIM) for p in ("int1", "int2", "int4", "fp32")),
    *(Choice("hashed", 0.25, DIM, p) for p in ("int2", "int8")),
    *(Choice("one"), Choice("zero")),
]


def examples(seed: int, size: int = 1500) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(n, (size,), generator=generator) for n in (60, 100)], 1)
    return Batch(torch.zeros(size), torch.zeros(size, 0), ids, {})


def calibrated():
    network = build_network(
        ModelConfig(name="dnn", dim=DIM, hidden=(16,)), 2, 0, torch.Generator().manual_seed(1)
    ).eval()
    # large rows, so that changes reach beyond the quadratic
    weight = 4 * torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(2))
    sensitivity = measure_sensitivity(network, weight, FIRST_ROWS, [examples(3)])
    prices = price(weight, sensitivity, GROUPS, CHOICES)
    held = HeldOut(network, weight, FIRST_ROWS, [examples(4)])
    return held, sensitivity, prices, calibrate(held, sensitivity, GROUPS, CHOICES, prices)


def test_a_planted_power_law_with_kinds_and_groups_is_found():
    generator = torch.Generator().manual_seed(5)
    log_price = 2 * torch.randn(200, 3, generator=generator).double() - 5
    kinds, groups = (
        torch.tensor([0.5, 1.0, 2.0]).double(),
        0.3 * torch.randn(200, generator=generator).double(),
    )
    increase = kinds + 1.2 * log_price + groups.unsqueeze(1)
    increase[7, 1] += 30.0  # one wild swap
    found, exponent, shifts = _fit(log_price, increase, torch.ones_like(log_price))
    assert exponent == pytest.approx(1.2, abs=0.02)
    torch.testing.assert_close(found, kinds, atol=0.15, rtol=0)
    # a ridge of 1 against three swaps keeps three quarters of a group's shift
    assert float((shifts - 0.75 * groups).abs().median()) < 0.05


def test_calibrated_prices_are_nearer_to_swaps_that_were_not_measured():
    held, sensitivity, prices, calibration = calibrated()
    after = calibration.apply(CHOICES, prices)
    fresh = (calibration.residual == 0.0) & (prices > 0.0)
    measured = torch.zeros_like(prices)
    for c, choice in enumerate(CHOICES):
        swaps = held.swaps((g, read_rows(held.weight, sensitivity, g, choice)) for g in GROUPS)
        measured[:, c] = torch.tensor([swap.increase for swap in swaps])
    wrong = [float((p[fresh] / measured[fresh]).log().abs().mean()) for p in (prices, after)]
    assert wrong[1] < 0.8 * wrong[0]
    assert calibration.error_after < calibration.error_before


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
