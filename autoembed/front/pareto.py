"""The Pareto front of bytes and quality, its hypervolume, and what the test split makes of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autoembed.front.point import Objective, Point, Split, sign


def pareto(points: Sequence[Point], objective: Objective) -> tuple[Point, ...]:
    """The points that no other one beats in bytes and in the *validation* metric, smallest first.

    Of points with equal bytes and equal metric one stays, that with the smaller trial number. Along the
    front bytes and quality rise strictly. The test split plays no part.
    """
    return _staircase(points, objective, "valid")


@dataclass(frozen=True)
class ReferencePoint:
    """Where hypervolume is counted from, and the box that it is divided by.

    The box reaches `decades` powers of ten below `bytes`, and `height` above `value` (below it for
    logloss). It depends on the full-precision reference alone, so fronts of one study compare.
    """

    bytes: int
    value: float
    objective: Objective
    split: Split
    decades: float = 3.0
    height: float = 0.01


def reference_point(reference: Point, objective: Objective, split: Split = "valid") -> ReferencePoint:
    """The default: bytes of full precision, and its mean AUC - 0.01 (its mean logloss + 0.01)."""
    height = 0.01
    value = reference.value(split, objective) - sign(objective) * height
    return ReferencePoint(reference.bytes, value, objective, split, height=height)


def hypervolume(points: Sequence[Point], reference: ReferencePoint) -> float:
    """Area that `points` dominate in (log10 bytes, metric) up to the reference point, over its box.

    1 would be full-precision quality at a thousandth of the bytes; more is possible, as quality may
    exceed the reference. Points beyond the reference point count nothing.
    """
    gains = [
        (
            math.log10(reference.bytes / point.bytes),
            point.quality(reference.split, reference.objective) - sign(reference.objective) * reference.value,
        )
        for point in points
    ]
    area, covered = 0.0, 0.0
    for width, height in sorted(gains, reverse=True):
        if width > 0 and height > covered:
            area += width * (height - covered)
            covered = height
    return area / (reference.decades * reference.height)


@dataclass(frozen=True)
class HeldOutFronts:
    """The validation front seen on test, by candidate names.

    Points chosen on validation may beat each other on test. `optimistic` keeps those that no other
    chosen one beats, `pessimistic` those that beat no other: a user who picks from the front lands
    between the two. Feurer et al., arXiv:2212.04183. The hypervolumes count from `reference`.
    """

    optimistic: tuple[str, ...]
    pessimistic: tuple[str, ...]
    reference: ReferencePoint | None
    optimistic_hypervolume: float | None
    pessimistic_hypervolume: float | None


def held_out_fronts(
    front: Sequence[Point], objective: Objective, reference: Point | None
) -> HeldOutFronts | None:
    """Test values of points chosen on validation; None where one of them has no test metric."""
    if not front or any(f"test_{objective}" not in point.metrics for point in front):
        return None
    optimistic = _staircase(front, objective, "test")
    pessimistic = _pessimistic(front, objective)
    origin = None
    if reference is not None and f"test_{objective}" in reference.metrics:
        origin = reference_point(reference, objective, "test")
    return HeldOutFronts(
        tuple(point.candidate for point in optimistic),
        tuple(point.candidate for point in pessimistic),
        origin,
        hypervolume(optimistic, origin) if origin else None,
        hypervolume(pessimistic, origin) if origin else None,
    )


def _staircase(points: Sequence[Point], objective: Objective, split: Split) -> tuple[Point, ...]:
    front: list[Point] = []
    best = -math.inf
    for point in sorted(points, key=lambda p: (p.bytes, -p.quality(split, objective), p.trials[0])):
        quality = point.quality(split, objective)
        if quality > best:
            front.append(point)
            best = quality
    return tuple(front)


def _pessimistic(points: Sequence[Point], objective: Objective) -> tuple[Point, ...]:
    kept: list[Point] = []
    worst = math.inf
    for point in sorted(points, key=lambda p: (-p.bytes, p.quality("test", objective), p.trials[0])):
        quality = point.quality("test", objective)
        if quality < worst:
            kept.append(point)
            worst = quality
    return tuple(reversed(kept))
