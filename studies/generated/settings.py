"""Which methods are measured on the generated log, and at which sizes.

Nothing is searched: a setting is picked by hand, and its `free` knob is what the byte model says just fits
the budget. Budgets lie a little above 1/4, 1/16, ...: scales and the index take bytes, too.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from autoembed.methods import make_method
from autoembed.methods.base import TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.plan import PROFILES
from autoembed.stats import Stats

BUDGETS = ("1/3.9", "1/15.5", "1/62", "1/248")
ROW_SCALES = "packed-row-scale"  # int8 rows with a step each need a profile that keeps it in the row
ROWWISE: dict[str, Any] = {"optimizer": "rowwise_adagrad", "table_learning_rate": 0.05}
Size = Callable[[float], int]  # of the file, by the free knob
# learning rates of quantization steps; 1e-3 elsewhere
SLOW_STEPS: dict[str, Any] = {"scale_learning_rate": 1e-4}
FAST_STEPS: dict[str, Any] = {"scale_learning_rate": 1e-2}
DIGITS = 4  # of a free knob


@dataclass(frozen=True)
class Setting:
    """A method at one size. `training` changes the recipe; no `budget`: the size follows from the knobs."""

    method: str
    knobs: dict[str, Any] = field(default_factory=dict)
    budget: str = ""
    free: str = ""
    profile: str = "packed"
    training: dict[str, Any] = field(default_factory=dict)

    def budget_bytes(self, stats: Stats, dim: int) -> int:
        full = FullPrecision().footprint(TableSpec(stats, dim, PROFILES["packed"])).high_bytes
        return int(full * Fraction(1, Fraction(self.budget.removeprefix("1/"))))

    def fitted(self, stats: Stats, dim: int) -> dict[str, Any]:
        """The knobs with the free one as large as the budget lets it be (`collisions`: as small)."""
        if not self.free:
            return self.knobs
        spec = TableSpec(stats, dim, PROFILES[self.profile])
        budget = self.budget_bytes(stats, dim)

        def size(value: float) -> int:
            return make_method(self.method, {**self.knobs, self.free: value}).footprint(spec).high_bytes

        value = _collisions(size, budget) if self.free == "collisions" else _share(size, budget)
        return {**self.knobs, self.free: value}


def _share(size: Size, budget: int) -> float:
    """Bytes are nearly proportional to a share: some steps of the rule of three, then down until it fits."""
    share = 0.1
    for _ in range(4):
        share = min(1.0, _down(share * budget / size(share)))
    while size(share) > budget:
        share = _down(share * 0.998)
    return share


def _down(share: float) -> float:
    scale = 10.0 ** (DIGITS - 1 - math.floor(math.log10(share)))
    return float(math.floor(share * scale) / scale)


def _collisions(size: Size, budget: int) -> int:
    """The fewest collisions that fit; bytes fall with collisions. Raises ValueError where none fit."""
    low, high = 2, 65536
    if size(high) > budget:
        raise ValueError(f"no number of collisions fits {budget:,} bytes, {high} takes {size(high):,}")
    while low < high:
        middle = (low + high) // 2
        if size(middle) <= budget:
            high = middle
        else:
            low = middle + 1
    return low


def _at(
    method: str,
    free: str,
    budgets: tuple[str, ...] = BUDGETS,
    training: dict[str, Any] | None = None,
    **knobs: Any,
) -> list[Setting]:
    return [Setting(method, knobs, budget, free, training=training or {}) for budget in budgets]


SETTINGS: tuple[Setting, ...] = (
    Setting("full_precision"),
    Setting("uniform", {"bits": 4}),
    *_at("frequency_cut", "keep", BUDGETS[1:], bits=4),
    *_at("hashing", "ratio"),
    *_at("cafe_offline", "ratio"),
    *_at("robe", "ratio"),
    *_at("cafe", "ratio", BUDGETS[:3]),
    Setting("uniform", {"bits": 4}, training=SLOW_STEPS),
    *_at("frequency_cut", "keep", BUDGETS[2:3], bits=16),
    Setting("uniform", {"bits": 4}, training=FAST_STEPS),
    Setting("low_precision", {"format": "int8"}, profile=ROW_SCALES),
    Setting("cached_low_precision", {"bits": 4, "cache": 0.01}, profile=ROW_SCALES),
    *_at("fiited", "keep", BUDGETS[:1]),
    Setting("joint"),
    *_at("frequency_cut", "keep", BUDGETS[2:], FAST_STEPS, bits=4),
    *_at("quotient_remainder", "collisions", BUDGETS[1:3]),
    Setting("mixed_dimension", {"keep": 1 / 3.9, "blocks": "group"}, BUDGETS[0]),
    Setting(
        "mixed_dimension", {"keep": 1 / 15.5, "blocks": "group", "bits": 8}, BUDGETS[1], training=FAST_STEPS
    ),
    Setting(
        "mixed_dimension", {"keep": 1 / 62, "blocks": "group", "bits": 4}, BUDGETS[2], training=FAST_STEPS
    ),
    *_at("quotient_remainder", "collisions", BUDGETS[:1]),
    Setting("low_precision", {"format": "int8"}, profile=ROW_SCALES, training=ROWWISE),
    Setting("full_precision", training=ROWWISE),
    Setting("uniform", {"bits": 2}, training=FAST_STEPS),
    *_at("frequency_cut", "keep", BUDGETS[3:], bits=16),
    Setting("low_precision", {"format": "fp16"}),
    *_at("mpe_budget", "ratio", BUDGETS[1:2]),
    Setting("uniform", {"bits": 8}, training=FAST_STEPS),
    Setting("fp16"),
    Setting("cached_low_precision", {"bits": 8, "cache": 0.05}, profile=ROW_SCALES),
    Setting("cached_low_precision", {"bits": 4, "cache": 0.01}, profile=ROW_SCALES, training=ROWWISE),
    *_at("fiited", "keep", BUDGETS[1:2]),
    *_at("fiited", "keep", BUDGETS[2:], chunks=1),
    *_at("cafe", "ratio", BUDGETS[3:]),
    *_at("quotient_remainder", "collisions", BUDGETS[3:]),
    *_at("mpe_budget", "ratio", BUDGETS[1:], FAST_STEPS),
    Setting("dqrm", {"bits": 4}),
    Setting("bebr", {"bits": 3}, training=FAST_STEPS),
    Setting("alpt", {"bits": 4}, profile=ROW_SCALES),
    *_at("pep", "keep", BUDGETS[1:3], FAST_STEPS, bits=4),
    *_at("lma", "ratio", BUDGETS[1:2], least=1000),
    Setting("mpe", training=FAST_STEPS),
)
TRIED: tuple[Setting, ...] = tuple(
    Setting("full_precision", training={"optimizer": o, "learning_rate": n, "table_learning_rate": t})
    for o, n, t in (
        ("adagrad", 0.01, 0.02),
        ("adagrad", 0.01, 0.05),
        ("adagrad", 0.005, 0.05),
        ("rowwise_adagrad", 0.01, 0.05),
    )
)
