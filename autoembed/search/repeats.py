"""Which candidates deserve more seeds: those that an answer could name. Decided on validation alone."""

from collections.abc import Container, Sequence
from itertools import pairwise

from autoembed.front import Objective, PickError, Point, pareto, pick_budget
from autoembed.statistics import Interval

NEAR = 0.002  # AUC or nats: a baseline this close below the best of its size may turn out to be the best


def wanted_repeats(
    points: Sequence[Point],
    tried: Container[tuple[str, int]],
    objective: Objective,
    budgets_bytes: Sequence[int],
    seeds: Sequence[int],
) -> list[tuple[Point, int]]:
    """Candidate and seed of the trainings still to run, the most wanted first.

    Seeds go first to points that are not yet told from their neighbours, one seed each before a next.

    Wanted are: full precision, the validation front, the best candidate within each budget, and baselines
    that are near the best of their size; not those that were `tried`, as (candidate, seed). New results may
    move the front, so ask again after each.
    """
    repeated = repeated_points(points, objective, budgets_bytes)
    unsettled = _unsettled(repeated, objective)
    left = [(p, [s for s in seeds if (p.candidate, s) not in tried]) for p in repeated]
    # seed after seed, so that no point waits for the last seeds of another; sorting keeps the order of equals
    turns = [(p, seed, len(seeds) - len(open_) + n) for p, open_ in left for n, seed in enumerate(open_)]
    turns.sort(key=lambda turn: (turn[0].candidate not in unsettled, turn[2]))
    return [(point, seed) for point, seed, _ in turns]


def _unsettled(points: Sequence[Point], objective: Objective) -> set[str]:
    """Candidates that their validation does not tell from a neighbour in size yet.

    Unsettled are two neighbours with intervals that overlap, or one of which has none for want of seeds; the
    reference, which every loss is measured against, counts as unsettled until it has an interval.
    """
    found: set[str] = set()
    ordered = sorted(points, key=lambda point: point.bytes)
    intervals = {point.candidate: point.interval("valid", objective) for point in ordered}
    for point in ordered:
        if point.role == "reference" and intervals[point.candidate].low is None:
            found.add(point.candidate)
    for one, other in pairwise(ordered):
        a, b = intervals[one.candidate], intervals[other.candidate]
        if not (_is_below(a, b) or _is_below(b, a)):
            found |= {one.candidate, other.candidate}
    return found


def _is_below(one: Interval, other: Interval) -> bool:
    """Whether all of an interval lies below another; False where either has no bounds."""
    return one.high is not None and other.low is not None and one.high < other.low


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
