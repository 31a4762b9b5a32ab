"""What each budget gets of the steps of fine-tuning, and about how long its point takes."""

import math
from collections.abc import Sequence

from autoembed.joint.config import JointConfig
from autoembed.joint.settle import MOST, STEPS, TRIED

OVERHEAD = 1.2  # seconds of fine-tuning, planning and measuring over those of as many steps of a training
KNEE_ENDS = 32.0  # the compression ratio beyond which a budget gets fewer steps


def shares(ratios: Sequence[float]) -> list[float]:
    """The part of the fine-tuning steps that each budget gets, by its compression ratio; they sum to 1.

    It grows by equal amounts as ratios double up to 16x, and falls beyond 32x: steps bring more about the
    knee of the front than at its far end.
    """
    rising = [min(max(0.3 * math.log2(max(ratio, 1.0)) - 0.25, 0.1), 0.95) for ratio in ratios]
    falling = [max((KNEE_ENDS / max(ratio, 1.0)) ** 0.5, 0.4) for ratio in ratios]
    weights = [min(weight, most) for weight, most in zip(rising, falling, strict=True)]
    return [weight / sum(weights) for weight in weights]


def expected_trainings(ratios: Sequence[float], config: JointConfig) -> list[float]:
    """About how many trainings each budget's point takes, were none of them good enough without steps."""
    parts = shares(ratios)
    trials = STEPS * len(TRIED)
    if config.teacher != "auto" or MOST * trials > config.fine_tune:
        trials = 0.0
    expected = [OVERHEAD * (config.fine_tune - trials) * part for part in parts]
    return [expected[0] + OVERHEAD * trials, *expected[1:]]


def steps_of(ratios: Sequence[float], total: int) -> list[int]:
    """The fine-tuning steps that each budget may take, by its compression ratio; they sum to `total`."""
    steps: list[int] = []
    for number in range(len(ratios)):
        steps.append(round((total - sum(steps)) * shares(ratios[number:])[0]))
    return steps


def next_steps(ratios: Sequence[float], total: int, taken: Sequence[int]) -> int:
    """What the budget behind those that took `taken` steps may take, of `total` for all.

    Its share of what is left, and no more than its share of all: what trials took at the first budget is made
    up for by budgets that need no steps, and what these leave beyond that is saved.
    """
    number = len(taken)
    left = max(total - sum(taken), 0)
    share = round(left * shares(ratios[number:])[0])
    return min(share, steps_of(ratios, total)[number])
