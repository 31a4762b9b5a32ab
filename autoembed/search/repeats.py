"""Which candidates deserve more seeds: those that an answer could name. Decided on validation alone."""

from collections.abc import Container, Sequence

from autoembed.front import Objective, PickError, Point, pareto, pick_budget

NEAR = 0.002  # AUC or nats: a baseline this close below the best of its size may turn out to be the best


def wanted_repeats(
    points: Sequence[Point],
    tried: Container[tuple[str, int]],
    objective: Objective,
    budgets_bytes: Sequence[int],
    seeds: Sequence[int],
) -> list[tuple[Point, int]]:
    """Candidate and seed of the trainings still to run, the most wanted first.

    Wanted are: full precision, the validation front, the best candidate within each budget, and baselines
    that are near the best of their size; not those that were `tried`, as (candidate, seed). New results may
    move the front, so ask again after each.
    """
    return [
        (point, seed)
        for point in repeated_points(points, objective, budgets_bytes)
        for seed in seeds
        if (point.candidate, seed) not in tried
    ]


def repeated_points(
    points: Sequence[Point], objective: Objective, budgets_bytes: Sequence[int]
) -> list[Point]:
    """The points that get error bars, the most wanted first.

    The front is followed down to half the smallest budget: what lies far below it was not asked for.
    """
    chosen = [point for point in points if point.role == "reference"]
    least = min(budgets_bytes, default=0) // 2
    chosen += [point for point in pareto(points, objective) if point.bytes >= least]
    for budget in budgets_bytes:
        try:
            chosen.append(pick_budget(points, budget, objective).point)
        except PickError:
            continue  # nothing fits this budget yet
    chosen += [point for point in points if point.role == "baseline" and _is_near(point, points, objective)]
    return list({point.candidate: point for point in chosen}.values())


def _is_near(point: Point, points: Sequence[Point], objective: Objective) -> bool:
    rivals = [other.quality("valid", objective) for other in points if other.bytes <= point.bytes]
    return max(rivals) - point.quality("valid", objective) <= NEAR
