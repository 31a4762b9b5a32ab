"""Do prices rank whole plans? Predicted and measured loss of random joint plans, and their rank correlation.

A random plan is what a solver might propose: the choices that minimise noisy prices + lambda x bytes, the
noise lognormal, lambda such that the plan meets a compression drawn between 2 and 128. Where Spearman's
correlation is below `POOR`, prices need the fallback, `calibrate(..., every_choice=True)`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed.joint.plan_reader import PlanReader
from autoembed.joint.stored_values import ChoiceLike
from autoembed.joint.swaps import HeldOut

POOR = 0.8
RATIOS = (2.0, 128.0)


@dataclass(frozen=True)
class Additivity:
    """Of every plan, the sum of its prices and the measured increase of the loss; their rank correlation."""

    predicted: tuple[float, ...]
    measured: tuple[float, ...]
    spearman: float

    @property
    def is_poor(self) -> bool:
        """False also for nan: equal losses have no ranks to get wrong."""
        return self.spearman < POOR


def check_additivity(
    held: HeldOut,
    reader: PlanReader,
    choices: Sequence[ChoiceLike],
    prices: Tensor,
    plans: Sequence[Tensor],
) -> Additivity:
    """Measure `plans`, each (G,) choice numbers, on held-out examples; one evaluation per plan."""
    numbers = torch.arange(len(reader.groups))
    predicted = [float(prices[numbers, plan].sum()) for plan in plans]
    read = reader.read(choices, torch.stack(list(plans)), held.rows)
    measured = [held.table(vectors) for vectors in read]
    return Additivity(tuple(predicted), tuple(measured), spearman(predicted, measured))


def random_plans(
    prices: Tensor, sizes: Tensor, count: int, generator: torch.Generator, *, spread: float = 1.0
) -> list[Tensor]:
    """`count` plans (G,) of choice numbers. prices and sizes (bytes) (G, C), infinite where not allowed."""
    full = float(torch.where(sizes.isfinite(), sizes, 0.0).amax(1).sum())
    low, high = (math.log(ratio) for ratio in RATIOS)
    plans = []
    for _ in range(count):
        noisy = prices * (spread * torch.randn(prices.shape, generator=generator, dtype=torch.float64)).exp()
        ratio = math.exp(low + (high - low) * float(torch.rand((), generator=generator)))
        plans.append(cheapest_plan(noisy, sizes, full / ratio))
    return plans


def cheapest_plan(prices: Tensor, sizes: Tensor, budget: float) -> Tensor:
    """(G,) choices that minimise prices + lambda sizes, lambda the least that keeps `budget`."""
    low, high = 1e-18, 1e6
    numbers = torch.arange(len(prices))
    for _ in range(32):  # 24 decades, to a hundred millionth
        middle = math.sqrt(low * high)
        plan = (prices + middle * sizes).argmin(1)
        if float(sizes[numbers, plan].sum()) > budget:
            low = middle
        else:
            high = middle
    return (prices + high * sizes).argmin(1)


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Rank correlation in [-1, 1], equal values sharing their mean rank; nan where one side is constant."""
    ranks = torch.stack([_ranks(torch.tensor(values, dtype=torch.float64)) for values in (first, second)])
    return float(torch.corrcoef(ranks)[0, 1])


def _ranks(values: Tensor) -> Tensor:
    below = (values.unsqueeze(0) < values.unsqueeze(1)).sum(1)
    equal = (values.unsqueeze(0) == values.unsqueeze(1)).sum(1)
    return below + (equal - 1) / 2.0
