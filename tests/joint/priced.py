"""A small network with prices and their calibration, for tests."""

from dataclasses import dataclass

import torch

from autoembed.data.batch import Batch
from autoembed.joint.calibration import calibrate
from autoembed.joint.plan_reader import PlanReader
from autoembed.joint.prices import price
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
    parts: tuple[tuple[int, str], ...] = ()
    code_bits: int = 0


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
    reader = PlanReader(weight, sensitivity, GROUPS)
    return held, sensitivity, prices, calibrate(held, reader, CHOICES, prices)
