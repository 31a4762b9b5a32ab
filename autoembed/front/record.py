"""The front of a study as one value: what is printed, drawn and written to files."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoembed.front.pareto import (
    HeldOutFronts,
    ReferencePoint,
    held_out_fronts,
    hypervolume,
    pareto,
    reference_point,
)
from autoembed.front.pick import (
    Pick,
    PickError,
    find_reference,
    pick_budget,
    pick_knee,
    pick_max_auc_drop,
    pick_trial,
)
from autoembed.front.point import Objective, Point, make_points, reference_trials, trial_fte
from autoembed.record import TrialRecord

AUC_DROPS = (0.0002, 0.0005, 0.001, 0.002)
RATIOS = (4, 16, 64, 256)


@dataclass(frozen=True)
class Answer:
    """A question to the front and its pick; where there is none, `problem` says why.

    `asked` is the budget in bytes, the allowed AUC drop, or the compression ratio.
    """

    asked: float
    pick: Pick | None
    problem: str = ""


@dataclass(frozen=True)
class Cost:
    """What the whole study took. `fte`, in full-training equivalents, is None without a timed reference."""

    trials: int
    complete: int
    rejected: int
    failed: int
    seconds: float
    fte: float | None


@dataclass(frozen=True)
class FrontRecord:
    """Points in the order of bytes; the front (candidate names) and picks were chosen on validation.

    `budgets` answers in bytes, `iso_accuracy` by allowed AUC drop, `iso_memory` by ratio of the
    full-precision bytes. Without a complete reference there is no hypervolume and no iso table.
    """

    objective: Objective
    points: tuple[Point, ...]
    front: tuple[str, ...]
    knee: Pick | None
    budgets: tuple[Answer, ...]
    iso_accuracy: tuple[Answer, ...]
    iso_memory: tuple[Answer, ...]
    reference_point: ReferencePoint | None
    hypervolume: float | None
    held_out: HeldOutFronts | None
    cost: Cost

    def point(self, candidate: str) -> Point:
        return next(point for point in self.points if point.candidate == candidate)

    @property
    def front_points(self) -> tuple[Point, ...]:
        """The points of the front, smallest first."""
        return tuple(self.point(candidate) for candidate in self.front)

    @property
    def reference(self) -> Point | None:
        """The full-precision point, if it was trained."""
        return find_reference(self.points)


def front_record(
    records: Sequence[TrialRecord],
    budgets_bytes: Sequence[int],
    objective: Objective,
    auc_drops: Sequence[float] = AUC_DROPS,
) -> FrontRecord:
    """Everything about the front of these trials. Raises ValueError where a complete trial lacks the
    validation metric."""
    points = make_points(records)
    front = pareto(points, objective)
    reference = find_reference(points)
    origin = reference_point(reference, objective) if reference else None
    return FrontRecord(
        objective=objective,
        points=points,
        front=tuple(point.candidate for point in front),
        knee=pick_knee(front, objective, origin) if front else None,
        budgets=tuple(_within(points, budget, budget, objective) for budget in budgets_bytes),
        iso_accuracy=tuple(_losing(points, drop) for drop in auc_drops) if reference else (),
        iso_memory=tuple(_within(points, ratio, reference.bytes // ratio, objective) for ratio in RATIOS)
        if reference
        else (),
        reference_point=origin,
        hypervolume=hypervolume(front, origin) if origin else None,
        held_out=held_out_fronts(front, objective, reference),
        cost=_cost(records),
    )


def choose(
    record: FrontRecord,
    *,
    budget_bytes: int | None = None,
    knee: bool = False,
    max_auc_drop: float | None = None,
    trial: int | None = None,
) -> Pick:
    """The pick for exactly one of the four wishes. Raises PickError where it cannot be met."""
    wishes = {
        "budget": budget_bytes is not None,
        "knee": knee,
        "max-auc-drop": max_auc_drop is not None,
        "trial": trial is not None,
    }
    asked = [name for name, given in wishes.items() if given]
    if len(asked) != 1:
        raise PickError(f"say exactly one of {', '.join(wishes)}; got {', '.join(asked) or 'none'}")
    if budget_bytes is not None:
        return pick_budget(record.points, budget_bytes, record.objective)
    if max_auc_drop is not None:
        return pick_max_auc_drop(record.points, max_auc_drop)
    if trial is not None:
        return pick_trial(record.points, trial)
    return pick_knee(record.front_points, record.objective, record.reference_point)


def _within(points: Sequence[Point], asked: float, budget_bytes: int, objective: Objective) -> Answer:
    try:
        return Answer(asked, pick_budget(points, budget_bytes, objective))
    except PickError as error:
        return Answer(asked, None, str(error))


def _losing(points: Sequence[Point], drop: float) -> Answer:
    try:
        return Answer(drop, pick_max_auc_drop(points, drop))
    except PickError as error:
        return Answer(drop, None, str(error))


def _cost(records: Sequence[TrialRecord]) -> Cost:
    reference = reference_trials(records)
    costs = [trial_fte(record, reference) for record in records if record.seconds > 0]
    states = [record.state for record in records]
    return Cost(
        trials=len(records),
        complete=states.count("complete"),
        rejected=states.count("rejected"),
        failed=states.count("failed"),
        seconds=sum(record.seconds for record in records),
        fte=None if None in costs else sum(cost for cost in costs if cost is not None),
    )
