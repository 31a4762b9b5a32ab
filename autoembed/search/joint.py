"""`search_space: joint`: one walk down all budgets per seed, kept as trials of an ordinary run folder.

Per seed a full-precision trunk is trained (the reference), then `autoembed.joint.walk` makes one model for
every budget, each starting from its larger neighbour. Every model is a trial with a record and its files, so
that the front, the plots, the picks and the export read it as any other. A walk that was killed goes on after
its last finished point. Seeds are walked side by side, each in a worker process of one thread, which makes it
repeat exactly (`joint_seed.py`).

    RUN/trials/NNNN/         the trunk, then the points, seed after seed; numbers are fixed by the study
        4000 ...             short trainings that tuned a trunk, which cost and are no points
        5000 ...             points of other recipes, walked with the first seed (`joint: {recipes: 5}`)
        7000 ...             points trained anew (`autoembed export --retrain`)
    RUN/walks/SEED/          where the walk stands, what the trunk was trained with, the order of its rows
    RUN/walks/SEED/recipe-N/ the same of the Nth recipe, and recipe.json once its walk has ended
"""

from collections import deque
from dataclasses import replace
from typing import Any

from autoembed.front import make_points
from autoembed.joint.planner import smallest_bytes
from autoembed.joint.shares import expected_trainings
from autoembed.record import NO_POINT, TrialRecord
from autoembed.search.events import (
    Listener,
    Notice,
    Standing,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialProgress,
    TrialStarted,
)
from autoembed.search.folder import RunFolder
from autoembed.search.inputs import Inputs
from autoembed.search.joint_seed import budgets_within, trunk_assignment
from autoembed.search.joint_trials import FIRST_SINGLE, RECIPES, check_numbers, read_recipe
from autoembed.search.limits import Limits, unmet_budgets
from autoembed.search.pool import Done, Failed, Pool, Report
from autoembed.search.standing import mean_seconds, standing_of
from autoembed.search.study import StudyConfig, StudyError

WALKER = "autoembed.search.joint_seed:walk_seed"
POLL_SECONDS = 0.5  # how late Ctrl-C may be noticed


def run_joint(config: StudyConfig, folder: RunFolder, inputs: Inputs, limits: Limits, tell: Listener) -> None:
    """Walk once per seed; what is finished is kept. The caller holds the folder.

    Other trials of the folder, from FIRST_SINGLE on, are not touched; where single methods are to follow, the
    end of the study is theirs to tell. Raises ValueError where all budgets are below the smallest plan,
    StudyError where a walk fails.
    """
    _Walks(config, folder, inputs, limits, tell).run()


class _Walks:
    """One call of `run_joint`."""

    def __init__(
        self, config: StudyConfig, folder: RunFolder, inputs: Inputs, limits: Limits, tell: Listener
    ) -> None:
        self.config, self.folder, self.inputs, self.limits, self.tell = config, folder, inputs, limits, tell
        self.records, _ = self._kept()
        self.budgets = budgets_within(limits, inputs.spec)
        check_numbers(config, len(self.budgets))
        self.per_seed = 1 + len(self.budgets)
        self.workers = min(config.workers, len(config.seed_list))
        self.out_of_time = False

    def run(self) -> None:
        self.folder.log("opened")
        begun = [number for number in self.folder.numbers() if number < FIRST_SINGLE]
        running = [number for number in begun if self.folder.record(number) is None]
        self.tell(
            StudyStarted(
                str(self.folder.path),
                self.config.objective,
                self.limits.budgets_bytes,
                self.limits.full_bytes,
                workers=self.workers,
                already=len(self.records),
                again=len(running),
                standing=self._standing(),
            )
        )
        if len(self.budgets) < len(self.limits.budgets_bytes):
            self._notice(unmet_budgets(self.limits.budgets_bytes, smallest_bytes(self.inputs.spec)))
        if self._left():
            with Pool(self.folder.path, WALKER, self.workers, self.folder.worker_log) as pool:
                self._walk_seeds(pool)
        if self.out_of_time:
            left = self._left()
            self._notice(f"the time limit was reached with {left} points left; raise time_limit to go on")
        if not self.config.single_spaces:
            self.folder.log("ended", trials=len(self.records))
            self.tell(StudyEnded(len(self.records), self._standing()))

    def _walk_seeds(self, pool: Pool) -> None:
        """The first seed's trunk is the reference of all costs, its best recipe that of the others."""
        waiting = deque(range(len(self.config.seed_list)))
        running: set[int] = set()
        while waiting or running:
            while waiting and pool.free and self._may_start(waiting[0], running):
                place = waiting.popleft()
                self._submit(pool, place)
                running.add(place)
            message = pool.wait(POLL_SECONDS)
            if isinstance(message, Report):
                self._tell_of(dict(message.values))
            elif isinstance(message, Done):
                running.discard(message.number // self.per_seed)
                self.out_of_time |= message.outcome["out_of_time"]
                if self.out_of_time:
                    waiting.clear()
            elif isinstance(message, Failed):
                seed = self.config.seed_list[message.number // self.per_seed]
                see = f"; see {message.see}" if message.see else ""
                raise StudyError(
                    f"the walk of seed {seed} failed: {message.reason}{see}; "
                    "points that are finished are kept"
                )

    def _may_start(self, place: int, running: set[int]) -> bool:
        if place == 0:
            return True
        has_reference = any(record.number == 0 for record in self.records)
        return has_reference and (self.config.joint.recipes == 1 or 0 not in running)

    def _submit(self, pool: Pool, place: int) -> None:
        number = place * self.per_seed
        if self.folder.assignment(number) is None:
            self.folder.assign(trunk_assignment(number, self.config.seed_list[place]))
        pool.submit(number)

    def _tell_of(self, values: dict[str, Any]) -> None:
        event = values.pop("event")
        if event == "started":
            self.tell(TrialStarted(**values))
        elif event == "progress":
            self.tell(TrialProgress(**values))
        else:
            record = self.folder.record(values["number"])
            assert record is not None, "a trial is told when its record is written"
            self.records.append(record)
            self.tell(TrialEnded(record, self._standing()))

    def _notice(self, text: str) -> None:
        self.folder.log("notice", text=text)
        self.tell(Notice(text))

    def _kept(self) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Records in the folder: of trunks and points; of what is none, as trainings that tuned trunks."""
        walked = [record for record in self.folder.records() if record.number < FIRST_SINGLE]
        aside = [record for record in walked if record.role in NO_POINT]
        return [record for record in walked if record not in aside], aside

    def _standing(self) -> Standing:
        standing = standing_of(
            *(self.records, make_points(self.records), [], self._left(), self.workers),
            *(self.limits.budgets_bytes, self.config.objective),
            aside=self._kept()[1],
        )
        return replace(standing, eta_seconds=self._eta())

    def _eta(self) -> float | None:
        """Seconds left, by those of the trunks: a point takes its share of fine-tuning, not a training."""
        seconds = mean_seconds([record for record in self.records if record.method == "full_precision"])
        if seconds is None:
            return None
        ratios = [self.limits.full_bytes / budget for budget in self.budgets]
        trainings = [1.0, *expected_trainings(ratios, self.config.joint)]
        kept = {record.number for record in self.records}
        wanted = range(len(self.config.seed_list) * self.per_seed)
        left = sum(trainings[number % self.per_seed] for number in wanted if number not in kept)
        others = max(self._left() - sum(number not in kept for number in wanted), 0)
        left += others * sum(trainings[1:]) / len(self.budgets)
        return seconds * left / self.workers

    def _left(self) -> int:
        """Trials that have not ended, as if no recipe were stopped early."""
        wanted = set(range(len(self.config.seed_list) * self.per_seed))
        recipes = self.config.joint.recipes - 1
        wanted |= set(range(RECIPES, RECIPES + recipes * len(self.budgets)))
        for ended in self.folder.path.glob("walks/*/recipe-*/recipe.json"):
            if not read_recipe(ended)["stopped"]:
                continue
            at = RECIPES + (int(ended.parent.name.split("-")[1]) - 1) * len(self.budgets)
            wanted -= set(range(at, at + len(self.budgets)))
        return len(wanted - {record.number for record in self.records})
