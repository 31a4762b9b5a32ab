"""Other recipes of the walk: Optuna proposes, and walks that fall behind are stopped early.

A recipe is the part of the `joint` section that fine-tuning depends on. The first is the user's own. The
value of a walk is its mean validation over the budgets, larger is better; after each budget on which steps
were spent, a walk below the median of the earlier ones at that place is stopped (Optuna's MedianPruner).
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

RANGES = {"rate": (0.05, 2.0), "step_rate": (0.0003, 0.02)}
LEVELS = {"l2": (0.0, 0.1, 0.3, 1.0), "teacher": (0.65, 0.9, 1.0)}
NAMES = ("rate", "l2", "teacher", "step_rate")
_RANDOM = 4  # recipes drawn at random before the sampler learns


@dataclass(frozen=True)
class Walked:
    """A recipe's walk: its parameters (of NAMES), validation by budget, larger is better.

    `stopped`: it fell behind. `spent` tells of every budget whether steps were spent on it.
    """

    parameters: dict[str, Any]
    values: tuple[float, ...]
    spent: tuple[bool, ...]
    stopped: bool = False

    @property
    def value(self) -> float:
        return statistics.fmean(self.values)


def next_recipe(walked: Sequence[Walked], seed: int) -> dict[str, Any]:
    """Parameters to walk with next: a function of the seed and of the walks before."""
    trial = _study(walked, seed).ask(_domains(walked))
    # two digits, as people read and type them
    return {
        name: float(f"{value:.2g}") if isinstance(value, float) else value
        for name, value in trial.params.items()
    }


def falls_behind(walked: Sequence[Walked], current: Walked, seed: int) -> bool:
    """Whether the current walk should stop behind its last value."""
    if not current.values or not current.spent[-1]:
        return False
    trial = _study(walked, seed).ask(_domains(walked))
    trial.report(current.value, len(current.values))
    return trial.should_prune()


def best_recipe(walked: Sequence[Walked]) -> int:
    """The number of the best walk that was not stopped; the first of equals."""
    whole = [number for number, walk in enumerate(walked) if not walk.stopped]
    return max(whole, key=lambda number: (walked[number].value, -number))


def _domains(walked: Sequence[Walked]) -> dict[str, BaseDistribution]:
    """What is proposed; the user's own settings are among it, whatever they are."""
    known = {name: {walk.parameters[name] for walk in walked} for name in NAMES}
    domains: dict[str, BaseDistribution] = {}
    for name in NAMES:
        if name in RANGES:
            low, high = RANGES[name]
            domains[name] = FloatDistribution(min(low, *known[name]), max(high, *known[name]), log=True)
        else:
            domains[name] = CategoricalDistribution(sorted({*LEVELS[name], *known[name]}))
    return domains


def _study(walked: Sequence[Walked], seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    draw = int(np.random.SeedSequence([seed, len(walked)]).generate_state(1)[0])
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=draw, n_startup_trials=_RANDOM),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=1),
    )
    domains = _domains(walked)
    for walk in walked:
        study.add_trial(
            create_trial(
                params=walk.parameters,
                distributions=domains,
                value=walk.value,
                intermediate_values={
                    place: statistics.fmean(walk.values[:place]) for place in range(1, len(walk.values) + 1)
                },
                state=TrialState.PRUNED if walk.stopped else TrialState.COMPLETE,
            )
        )
    return study
