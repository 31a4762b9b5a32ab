"""How much fine-tuning learns from the labels, and how fast: found by trials at the first budget.

The trunk's predictions as targets are safe: where every further look at the labels overfits, as on a long
tail, they lose nothing. Where the labels still teach, targets that are part label, part prediction give
models that are better than the trunk (Furlanello et al., "Born again neural networks", arXiv:1805.04770).
Which of the two holds is a matter of the data and of the trunk, so it is tried, and judged on the validation
split: the first budget's table is tuned once with each share, in the same order of examples. What is best
stays for all budgets.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from autoembed.joint.config import JointConfig
from autoembed.joint.table import Weights
from autoembed.metrics import Metrics
from autoembed.packed import Packed

# shares of the trunk's predictions that are tried, and the rates, times the user's: without labels first, and
# where many of the targets are labels, faster, since there is more to learn
TRIED = ((1.0, 1.0), (0.9, 1.0), (0.65, 3.0))
STEPS = 0.12  # trainings of steps of a trial: what labels teach shows no sooner
MOST = 2  # all trials together take at most one in so many of the walk's steps, or there are none
MARGIN = 2e-4  # gained on the validation split, below which labels are left out; log loss is taken alike


@dataclass(frozen=True)
class Settings:
    """Of fine-tuning: the weight of the trunk's predictions, and the learning rates, of the trunk's."""

    teacher: float
    rate: float


@dataclass(frozen=True)
class Tuned:
    """A table that was fine-tuned: what it leaves for smaller budgets, packed, measured under its network."""

    weights: Weights
    packed: Packed
    network: nn.Module
    valid: Metrics


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and what they gave on the validation split; None where they diverged."""

    teacher: float
    rate: float
    valid: Metrics | None


def usual(config: JointConfig) -> Settings:
    """The settings where nothing is tried, or nothing was found."""
    return Settings(1.0 if config.teacher == "auto" else config.teacher, config.rate)


def steps_of_trials(training_steps: int, total: int) -> int:
    """Steps of each trial, 0 where the `total` of the whole walk leaves none for trials."""
    steps = round(STEPS * training_steps)
    return steps if MOST * len(TRIED) * steps <= total else 0


def settle(
    tune: Callable[[Settings], Tuned | None], untuned: Metrics, is_enough: bool, rate: float, metric: str
) -> tuple[Settings, Tuned | None, tuple[Trial, ...]]:
    """The settings for all budgets, the model that they gave if it is to be kept, and what was tried.

    `tune` starts anew each time, and returns None where it diverges. Where the untuned model `is_enough`,
    nothing is tried without labels: then these must gain, and otherwise no step is needed. Where few labels
    do harm, many are not tried.
    """
    without, *others = (Settings(teacher, float(f"{rate * faster:.6g}")) for teacher, faster in TRIED)
    trials: list[Trial] = []

    def tried(settings: Settings) -> Tuned | None:
        tuned = tune(settings)
        trials.append(Trial(settings.teacher, settings.rate, None if tuned is None else tuned.valid))
        return tuned

    plain = None if is_enough else tried(without)
    bar = untuned
    if plain is not None and plain.valid.better_than(bar, metric):
        bar = plain.valid
    found, best = without, None
    for settings in others:
        tuned = tried(settings)
        if tuned is not None and tuned.valid.better_than(best.valid if best else bar, metric):
            found, best = settings, tuned
        elif tuned is None or bar.better_than(tuned.valid, metric, MARGIN):
            break
    if best is None or not best.valid.better_than(bar, metric, MARGIN):
        return without, plain, tuple(trials)
    return found, best, tuple(trials)
