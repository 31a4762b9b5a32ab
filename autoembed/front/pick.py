"""Picks: one point of a study for a budget, an allowed loss, the knee, or a trial number.

Every pick reads validation metrics only. The trial to export is the seed of the picked point with the
best validation metric.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoembed.budget import format_bytes
from autoembed.front.pareto import ReferencePoint
from autoembed.front.point import Objective, Point, sign


class PickError(ValueError):
    """No point meets the request; the message names the nearest one that would."""


@dataclass(frozen=True)
class Pick:
    """A point, the trial of it to export, and why."""

    point: Point
    trial: int
    reason: str


def pick_budget(points: Sequence[Point], budget_bytes: int, objective: Objective) -> Pick:
    """The best validation metric among points of at most `budget_bytes`; of equals the smaller.

    Raises PickError naming the smallest point where none fits.
    """
    _require(points)
    fitting = [point for point in points if point.bytes <= budget_bytes]
    if not fitting:
        smallest = min(points, key=lambda point: point.bytes)
        raise PickError(
            f"no candidate fits {budget_bytes} bytes ({format_bytes(budget_bytes)}); the smallest, "
            f"{smallest.label}, needs {smallest.bytes} bytes ({format_bytes(smallest.bytes)}): "
            "raise the budget or search smaller plans"
        )
    best = max(fitting, key=lambda point: (point.quality("valid", objective), -point.bytes))
    return _pick(
        best,
        objective,
        f"best valid {objective} {best.value('valid', objective):.5f} of {len(fitting)} candidates within "
        f"{budget_bytes} bytes ({format_bytes(budget_bytes)})",
    )


def pick_knee(front: Sequence[Point], objective: Objective, reference: ReferencePoint | None = None) -> Pick:
    """The point of the front that lies highest above the line from its first to its last point.

        x = (log bytes - log first bytes) / (log last bytes - log first bytes)
        y = (quality - first quality) / (last quality - first quality);    the knee maximises y - x

    Before it bytes buy much quality, after it little. With fewer than three points, or none above the
    line, it is the last point, that of the best metric. Points that do not beat the value of
    `reference` are left out first, if any remains: a collapsed tiny candidate would bend the line.
    `front` is what `pareto` returns. Raises PickError where it is empty.
    """
    _require(front)
    if reference is not None:
        floor = sign(objective) * reference.value
        front = [point for point in front if point.quality("valid", objective) > floor] or front
    heights = [_height_above_chord(point, front[0], front[-1], objective) for point in front]
    best = max(range(len(front)), key=lambda i: (heights[i], i))
    point = front[best]
    where = f"the line from {format_bytes(front[0].bytes)} to {format_bytes(front[-1].bytes)}"
    found = f"{heights[best]:.2f} above {where}" if heights[best] > 0 else f"none above {where}, so the last"
    return _pick(point, objective, f"knee of {len(front)} front candidates: {found}, both axes scaled to 1")


def pick_max_auc_drop(points: Sequence[Point], drop: float) -> Pick:
    """The smallest point whose validation AUC is at most `drop` below the full-precision reference.

    The loss is the mean paired difference over the seeds that both have, else the difference of means.
    Raises PickError where there is no reference, or names the smallest loss where none is allowed.
    """
    _require(points)
    reference = find_reference(points)
    if reference is None:
        raise PickError(
            "an allowed AUC drop needs a complete full-precision trial (role 'reference') in the study"
        )
    losses = {point.candidate: _valid_auc_loss(point, reference) for point in points}
    allowed = [point for point in points if losses[point.candidate] <= drop]
    if not allowed:
        nearest = min(points, key=lambda point: losses[point.candidate])
        raise PickError(
            f"no candidate loses at most {drop:g} valid AUC; {nearest.label} "
            f"({format_bytes(nearest.bytes)}) loses least, {losses[nearest.candidate]:.5f}"
        )
    best = min(allowed, key=lambda point: (point.bytes, losses[point.candidate]))
    paired = best.losses.get("valid_auc")
    spread = (
        f", 95% interval [{paired.low:.5f}, {paired.high:.5f}] over {paired.count} seeds"
        if paired and paired.low is not None and paired.high is not None
        else (", one seed" if paired else ", a difference of means, no seed shared")
    )
    return _pick(
        best,
        "auc",
        f"smallest of {len(allowed)} candidates that lose at most {drop:g} valid AUC: it loses "
        f"{losses[best.candidate]:.5f}{spread}",
    )


def pick_trial(points: Sequence[Point], number: int) -> Pick:
    """The point that trial `number` belongs to, and that trial. Raises PickError listing the trials."""
    _require(points)
    for point in points:
        if number in point.trials:
            return Pick(point, number, f"trial {number} was asked for")
    known = sorted(trial for point in points for trial in point.trials)
    raise PickError(f"trial {number} is none of the points, whose trials are {', '.join(map(str, known))}")


def find_reference(points: Sequence[Point]) -> Point | None:
    """The full-precision point, if it was trained."""
    return next((point for point in points if point.role == "reference"), None)


def _pick(point: Point, objective: Objective, reason: str) -> Pick:
    name = f"valid_{objective}"
    best = max(point.repeats, key=lambda repeat: (sign(objective) * repeat.metrics[name], -repeat.trial))
    return Pick(point, best.trial, reason)


def _require(points: Sequence[Point]) -> None:
    if not points:
        raise PickError("there is no complete trial to pick from; let the search finish one")


def _height_above_chord(point: Point, first: Point, last: Point, objective: Objective) -> float:
    width = math.log(last.bytes / first.bytes)
    rise = last.quality("valid", objective) - first.quality("valid", objective)
    if point is first or point is last or width <= 0 or rise <= 0:
        return 0.0
    x = math.log(point.bytes / first.bytes) / width
    y = (point.quality("valid", objective) - first.quality("valid", objective)) / rise
    return y - x


def _valid_auc_loss(point: Point, reference: Point) -> float:
    paired = point.losses.get("valid_auc")
    return paired.mean if paired else reference.value("valid", "auc") - point.value("valid", "auc")
