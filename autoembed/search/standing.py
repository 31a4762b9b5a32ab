"""How far a study is: trainings, cost, time left, the best candidate within each budget."""

from collections.abc import Sequence

from autoembed.front import Objective, Point
from autoembed.front.point import reference_trials, trial_fte
from autoembed.record import TrialRecord
from autoembed.search.events import Best, Standing


def mean_seconds(records: Sequence[TrialRecord]) -> float | None:
    """Seconds of a training so far, None before one has ended."""
    seconds = [record.seconds for record in records if record.seconds > 0]
    return sum(seconds) / len(seconds) if seconds else None


def standing_of(
    records: Sequence[TrialRecord],
    points: Sequence[Point],
    running_seconds: Sequence[float],
    left: int,
    workers: int,
    budgets_bytes: Sequence[int],
    objective: Objective,
    aside: Sequence[TrialRecord] = (),
) -> Standing:
    """`points`: those of `records`; `left`: trainings not begun; `aside`: what is none of them, but cost.

    `running_seconds`: how long each training under way has taken.
    """
    trained = [record for record in records if record.state != "rejected"]
    mean = mean_seconds(records)
    reference = reference_trials(records)
    costs = [cost for record in (*trained, *aside) if (cost := trial_fte(record, reference)) is not None]
    return Standing(
        finished=len(trained),
        planned=len(trained) + len(running_seconds) + left,
        spent_fte=sum(costs) if costs else None,
        eta_seconds=None
        if mean is None
        else (left * mean + sum(max(mean - spent, 0.0) for spent in running_seconds)) / workers,
        best=_best(points, budgets_bytes, objective),
    )


def _best(points: Sequence[Point], budgets_bytes: Sequence[int], objective: Objective) -> tuple[Best, ...]:
    best = []
    for budget in budgets_bytes:
        fitting = [point for point in points if point.bytes <= budget]
        point = max(fitting, key=lambda p: (p.quality("valid", objective), -p.bytes), default=None)
        best.append(
            Best(budget, None, None, None)
            if point is None
            else Best(budget, point.candidate, point.value("valid", objective), point.bytes)
        )
    return tuple(best)
