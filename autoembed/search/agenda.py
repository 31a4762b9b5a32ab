"""What a study does next. Knows trials and decisions, no processes and no files.

Order: trials that were interrupted, the full-precision reference, the space's baselines, settings of earlier
searches, what the sampler proposes, and when all of these have ended, other seeds for the points that an
answer could name. With `promotion` what the sampler proposes is trained for few epochs, and the best of every
few in full (successive halving with one step, Jamieson and Talwalkar, arXiv:1502.07943).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoembed.front import Objective, Point, make_points, pareto
from autoembed.methods import make_method, method_parameters
from autoembed.methods.base import Method, TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.record import NO_POINT, Role, TrialRecord
from autoembed.search.events import Standing
from autoembed.search.folder import Assignment
from autoembed.search.limits import Limits, candidate_name, rejection, verdict
from autoembed.search.proposals import Proposal, Proposals
from autoembed.search.repeats import wanted_repeats
from autoembed.search.standing import mean_seconds, standing_of
from autoembed.search.study import JOINT, StudyConfig
from autoembed.space import Space

EXPLORE_AFTER = 16  # proposals in a row that need no training: the sampler repeats itself, draw at random
GIVE_UP_AFTER = 100  # so many in a row: the space holds little else


@dataclass(frozen=True)
class Rejected:
    """A candidate that the byte model refuses: it gets a record, no training."""

    assignment: Assignment
    reason: str


@dataclass(frozen=True)
class History:
    """What earlier sessions left. `assignments` are of all trials, `seconds` the wall time that they took.

    Trials below `first` are another search's: the reference and points among them count, nothing else.
    """

    records: tuple[TrialRecord, ...]
    assignments: Mapping[int, Assignment]
    seconds: float
    first: int = 0

    @property
    def interrupted(self) -> list[Assignment]:
        """Assigned and not finished, in order."""
        finished = {record.number for record in self.records}
        ours = [entry for number, entry in sorted(self.assignments.items()) if number >= self.first]
        return [entry for entry in ours if entry.number not in finished]

    @property
    def next_number(self) -> int:
        numbers = [self.first - 1, *self.assignments, *(record.number for record in self.records)]
        return 1 + max(numbers)


class Agenda:
    """`next` hands out work; the caller does it, writes the record, and reports it with `finish`."""

    def __init__(
        self,
        config: StudyConfig,
        spec: TableSpec,
        space: Space,
        limits: Limits,
        proposals: Proposals,
        history: History,
        baselines: Sequence[Method] = (),
        warm: Sequence[Method] = (),
        train_rows: int = 0,
    ) -> None:
        """`baselines`: settings to run first, those of `warm` behind them; `train_rows`: of an epoch, for
        short trainings.
        """
        self._config = config
        self._baselines = baselines
        self._warm = [method for method in warm if proposals.content_of(method) is not None]
        self._train_rows = train_rows
        self._first = history.first
        self._spec = spec
        self._space = space
        self._limits = limits
        self._proposals = proposals
        self.records = list(history.records)
        self._interrupted = history.interrupted
        self._next_number = history.next_number
        self._started = time.monotonic() - history.seconds
        self._running: dict[int, tuple[Assignment, float]] = {}
        self._proposed: dict[int, Proposal] = {}
        self._sampling_ended = not space.searched
        self.why_sampling_ended = ""
        self._points_of: tuple[int, tuple[Point, ...]] = (0, ())
        known = proposals.told()
        for record in self.records:
            if record.number not in known:
                self._tell(history.assignments.get(record.number), record)

    def next(self) -> Assignment | Rejected | None:
        """What to do now; None: wait for what is running, or all is done."""
        following = self._following()
        assignment = following.assignment if isinstance(following, Rejected) else following
        if assignment is not None:
            self._running[assignment.number] = assignment, time.monotonic()
        return following

    def finish(self, record: TrialRecord) -> None:
        """Take in the record of what `next` handed out, once it is on disk."""
        assignment, _ = self._running.pop(record.number)
        self.records.append(record)
        self._tell(assignment, record)

    def costed(self, record: TrialRecord) -> TrialRecord:
        """The record with its cost in full-training equivalents, where the reference has been timed."""
        reference = self.reference
        if reference is None and record.role == "reference" and record.state == "complete":
            reference = record
        if reference is None or record.cost <= 0:
            return record
        return replace(record, fte=record.cost / reference.cost)

    def cost_late(self) -> list[TrialRecord]:
        """Fill in the cost of records that ended before the reference did; returns those that changed."""
        changed = []
        for place, record in enumerate(self.records):
            if record.fte is None and self.costed(record).fte is not None:
                self.records[place] = self.costed(record)
                changed.append(self.records[place])
        return changed

    @property
    def reference(self) -> TrialRecord | None:
        """The full-precision training whose cost is one full-training equivalent."""
        return next((r for r in self.records if r.role == "reference" and r.state == "complete"), None)

    @property
    def out_of_time(self) -> bool:
        limit = self._config.time_limit_seconds
        return limit is not None and self._elapsed >= limit

    def left(self) -> int:
        """Trainings that have not begun, with the repeats expected as of now."""
        missing_reference = self.reference is None and not self._under_way("reference")
        left = len(self._interrupted) + self._expected_repeats() + missing_reference
        left += len(self._baselines_left())
        if self._sampling_ended:
            return left
        promotion = self._config.promotion
        share = 0.0 if promotion is None else promotion.keep / promotion.of
        return left + round(self._trials_left() * (1 + share))

    def standing(self) -> Standing:
        now = time.monotonic()
        walked = (record for record in self.records if record.number < self._first)
        aside = [record for record in walked if record.role in NO_POINT]
        return standing_of(
            [record for record in self.records if record not in aside],
            self._points,
            [now - started for _, started in self._running.values()],
            self.left(),
            self._config.workers,
            self._limits.budgets_bytes,
            self._config.objective,
            aside,
        )

    def _following(self) -> Assignment | Rejected | None:
        if self.out_of_time:
            return None
        if self._interrupted:
            return self._checked(self._interrupted.pop(0))
        if self.reference is None and not self._under_way("reference"):
            return self._assignment(FullPrecision(), "reference", self._config.seed)
        for method in self._baselines_left():
            content = self._proposals.content_of(method)
            return self._checked(self._assignment(method, "baseline", self._config.seed, content))
        if self._config.promotion is not None and self.reference is None:
            return None  # how long a short training is follows from the reference's
        if (promoted := self._promoted()) is not None:
            return self._full(promoted)
        if self._may_sample():
            following = self._sampled()
            if following is not None:
                return following
        if (promoted := self._promoted()) is not None:  # sampling may have ended just now
            return self._full(promoted)
        if self._under_way("reference", "baseline", "search", "short"):
            return None
        for method, seed in self._wanted_repeats():
            return self._assignment(method, "repeat", seed)
        return None

    def _sampled(self) -> Assignment | Rejected | None:
        """The next proposal that is not a repetition; None where the space seems to hold no more."""
        barren = self._rejections_in_a_row()
        for attempt in range(GIVE_UP_AFTER - barren):
            explore = barren + attempt >= EXPLORE_AFTER
            proposal = self._proposals.ask(self._next_number, attempt, explore)
            if candidate_name(proposal.method) in self._seen():
                # told already, or soon: a second time would draw the sampler back to it
                self._proposals.drop(proposal)
                continue
            assignment = self._assignment(
                *(proposal.method, self._sampled_role, self._config.seed, proposal.content),
                epochs=self._short_epochs(),
            )
            self._proposals.assign(proposal, assignment.number)
            self._proposed[assignment.number] = proposal
            return self._checked(assignment)
        self._end_sampling(f"{GIVE_UP_AFTER} proposals in a row were beyond the budgets or known before")
        return None

    @property
    def _sampled_role(self) -> Role:
        """The role of trials that the sampler proposes."""
        return "search" if self._config.promotion is None else "short"

    def _short_epochs(self) -> int | None:
        """Epochs of a short training: a share of those that the reference ran, at least one."""
        if self._config.promotion is None or self.reference is None:
            return None
        epochs = self.reference.samples / max(self._train_rows, 1)
        return max(1, round(self._config.promotion.share * epochs))

    def _promoted(self) -> TrialRecord | None:
        """A short training that has earned one in full which has not begun; None where there is none.

        Short trainings are compared in the order of their numbers, `of` at a time, or fewer once there will
        be no more: those that no other beats in bytes and validation first, then those that only these beat.
        """
        promotion = self._config.promotion
        if promotion is None:
            return None
        waiting = {entry.number for entry in self._work("short")}
        ended = {record.number: record for record in self._ours if record.role == "short"}
        numbers = sorted(waiting | {n for n, record in ended.items() if record.state != "rejected"})
        rungs = [numbers[at : at + promotion.of] for at in range(0, len(numbers), promotion.of)]
        seen = {record.candidate for record in self.records if record.role != "short"}
        seen |= {entry.candidate for entry in self._work() if entry.role != "short"}
        for rung in rungs:
            is_full = len(rung) == promotion.of or self._sampling_ended
            if not is_full or waiting.intersection(rung):
                continue
            points = [replace(ended[n], role="search") for n in rung if ended[n].state == "complete"]
            for candidate in _ranked(points, self._config.objective)[: promotion.keep]:
                if candidate.candidate not in seen:
                    return candidate
        return None

    def _full(self, short: TrialRecord) -> Assignment:
        """The training in full of what `short` trained for few epochs."""
        method = make_method(short.method, short.parameters)
        return self._assignment(method, "search", self._config.seed, self._proposals.content_of(method))

    def _checked(self, assignment: Assignment) -> Assignment | Rejected:
        if assignment.role in ("reference", "repeat"):
            return assignment  # full precision need not fit; what is repeated was checked before
        method = make_method(assignment.method, assignment.parameters)
        reason = rejection(method, self._spec, self._limits)
        return Rejected(assignment, reason) if reason else assignment

    def _assignment(
        self,
        method: Method,
        role: Role,
        seed: int,
        proposal: dict[str, Any] | None = None,
        epochs: int | None = None,
    ) -> Assignment:
        number = self._next_number
        self._next_number += 1
        return Assignment(
            *(number, candidate_name(method), method.name, method_parameters(method), seed, role),
            *(proposal, epochs),
        )

    def _tell(self, assignment: Assignment | None, record: TrialRecord) -> None:
        """Let the sampler know, if it could have proposed the candidate."""
        if assignment is None or assignment.proposal is None:
            return
        outcome = verdict(record, self._config.objective, self._spec, self._limits)
        proposal = self._proposed.pop(record.number, None)
        if proposal is not None:
            self._proposals.tell(proposal, outcome)
        else:
            self._proposals.add(assignment, outcome)

    def _may_sample(self) -> bool:
        """Whether the sampler may propose more. Once it may not, it stays so for this session."""
        if self._sampling_ended:
            return False
        limit, mean = self._config.time_limit_seconds, mean_seconds(self.records) or 0.0
        repeat_seconds = self._expected_repeats() * mean / self._config.workers
        if self._trials_left() == 0:
            self._end_sampling("")
        elif limit is not None and self._elapsed + repeat_seconds >= limit:
            self._end_sampling(f"the time limit {self._config.time_limit} leaves time for the repeats alone")
        elif self._stalled():
            self._end_sampling(f"the last {self._config.patience_trials} trials brought nothing to the front")
        return not self._sampling_ended

    def _stalled(self) -> bool:
        patience, ended = self._config.patience_trials, self._sampled_records()
        if patience is None or len(ended) < patience:
            return False
        first_seeds = [record for record in self.records if record.role != "repeat"]
        front = {point.candidate for point in pareto(make_points(first_seeds), self._config.objective)}
        return not any(record.candidate in front for record in ended[-patience:])

    def _end_sampling(self, why: str) -> None:
        self._sampling_ended = True
        self.why_sampling_ended = why

    def _sampled_records(self) -> list[TrialRecord]:
        """Sampled trials that were trained, with or without success, by number."""
        role = self._sampled_role
        ended = [r for r in self._ours if r.role == role and r.state != "rejected"]
        return sorted(ended, key=lambda record: record.number)

    def _rejections_in_a_row(self) -> int:
        """Sampled candidates rejected since the last one that was trained."""
        trained = [record.number for record in self._sampled_records()]
        role = self._sampled_role
        last = max(trained + [entry.number for entry in self._work(role)], default=-1)
        return sum(record.role == role and record.number > last for record in self._ours)

    @property
    def _ours(self) -> list[TrialRecord]:
        return [record for record in self.records if record.number >= self._first]

    def _work(self, *roles: Role) -> list[Assignment]:
        """Assigned and not finished, waiting or running; of these roles, if any are named."""
        work = [*self._interrupted, *(assignment for assignment, _ in self._running.values())]
        return [assignment for assignment in work if not roles or assignment.role in roles]

    def _under_way(self, *roles: Role) -> bool:
        return bool(self._work(*roles))

    def _seen(self) -> set[str]:
        return {record.candidate for record in self.records} | {entry.candidate for entry in self._work()}

    def _baselines_left(self) -> list[Method]:
        seen = self._seen()
        first = [*self._baselines, *self._warm]
        return [method for method in first if candidate_name(method) not in seen]

    def _trials_left(self) -> int:
        begun = len(self._work(self._sampled_role)) + len(self._sampled_records())
        return max(self._config.trials - begun, 0)

    def _wanted_repeats(self) -> list[tuple[Method, int]]:
        """Candidates and seeds that are wanted and not under way."""
        config = self._config
        tried = {(r.candidate, r.seed) for r in self.records} | {(a.candidate, a.seed) for a in self._work()}
        wanted = wanted_repeats(
            self._points, tried, config.objective, self._limits.budgets_bytes, config.seed_list
        )
        # the seeds of a joint search's points are walks, not ours to repeat
        ours = [(point, seed) for point, seed in wanted if point.method != JOINT]
        return [(make_method(point.method, point.parameters), seed) for point, seed in ours]

    def _expected_repeats(self) -> int:
        """Repeats still to come: those wanted now; while sampling, at least for one point per budget."""
        wanted = len(self._wanted_repeats())
        if self._sampling_ended:
            return wanted
        return max(wanted, (self._config.seeds - 1) * (1 + len(self._limits.budgets_bytes)))

    @property
    def _points(self) -> tuple[Point, ...]:
        """The points of the records, made again when there are more of them."""
        count, points = self._points_of
        if count != len(self.records):
            points = make_points(self.records)
            self._points_of = len(self.records), points
        return points

    @property
    def _elapsed(self) -> float:
        """Wall time of the study over all its sessions."""
        return time.monotonic() - self._started


def _ranked(records: Sequence[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """The front of these trials, then the front of what is left, and so on; each by validation."""
    left, ranked = list(records), []
    while left:
        front = {point.candidate for point in pareto(make_points(left), objective)}
        layer = [record for record in left if record.candidate in front]
        better = (
            (lambda r: -(r.valid_auc or 0.0)) if objective == "auc" else (lambda r: r.valid_logloss or 0.0)
        )
        ranked += sorted(layer, key=better)
        left = [record for record in left if record.candidate not in front]
    return ranked
