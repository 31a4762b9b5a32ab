"""`search_space: joint`: one walk down all budgets per seed, kept as trials of an ordinary run folder.

Per seed a full-precision trunk is trained (the reference), then `autoembed.joint.walk` makes one model for
every budget, each starting from its larger neighbour. Every model is a trial with a record and its files, so
that the front, the plots, the picks and the export read it as any other. A walk that was killed goes on after
its last finished point.

    RUN/trials/NNNN/         the trunk, then the points, seed after seed; numbers are fixed by the study
        4000 ...             short trainings that tuned a trunk, which cost and are no points
        5000 ...             points of other recipes, walked with the first seed (`joint: {recipes: 5}`)
        7000 ...             points trained anew (`autoembed export --retrain`)
    RUN/walks/SEED/          where the walk stands, what the trunk was trained with
    RUN/walks/SEED/recipe-N/ the same of the Nth recipe, and recipe.json once its walk has ended
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from autoembed.front import make_points
from autoembed.joint.explain import explained
from autoembed.joint.planner import JointPlanner, rotated, smallest_bytes
from autoembed.joint.table import Weights, table_under
from autoembed.joint.trunk import Trunk, train_trunk
from autoembed.joint.walk import Point, walk
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.plans import uniform_fields
from autoembed.packed import Packed
from autoembed.record import Role, TrialRecord, write_json
from autoembed.search.events import (
    Listener,
    Notice,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialProgress,
    TrialStarted,
)
from autoembed.search.folder import Assignment, RunFolder
from autoembed.search.inputs import Inputs
from autoembed.search.joint_trials import (
    EXPLAINED,
    FIRST_SINGLE,
    RECIPES,
    TUNING,
    TUNING_OF_A_SEED,
    joint_name,
    keep_trial,
    measured_point,
    read_trunk,
    trunk_file,
)
from autoembed.search.limits import Limits, candidate_name
from autoembed.search.recipes import DOMAINS, Walked, best_recipe, falls_behind, next_recipe
from autoembed.search.standing import standing_of
from autoembed.search.study import JOINT, StudyConfig
from autoembed.training import Progress


class _OutOfTime(Exception):
    """The time limit was reached between two points."""


class _FellBehind(Exception):
    """A recipe's walk is not worth its smaller budgets."""


def run_joint(config: StudyConfig, folder: RunFolder, inputs: Inputs, limits: Limits, tell: Listener) -> None:
    """Walk once per seed; what is finished is kept. The caller holds the folder.

    Other trials of the folder, from FIRST_SINGLE on, are not touched; where single methods are to follow, the
    end of the study is theirs to tell.

    Raises ValueError where a budget is below the smallest plan, Diverged where the trunk diverges. Walks run
    one after another on one thread, which makes them repeat exactly.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _Joint(config, folder, inputs, limits, tell).run()
    finally:
        torch.set_num_threads(threads)


class _Joint:
    """One call of `run_joint`."""

    def __init__(
        self, config: StudyConfig, folder: RunFolder, inputs: Inputs, limits: Limits, tell: Listener
    ) -> None:
        self.config, self.folder, self.inputs, self.limits, self.tell = config, folder, inputs, limits, tell
        self.records = [record for record in folder.records() if record.number < FIRST_SINGLE]
        self.floor = smallest_bytes(inputs.spec)
        self.budgets = tuple(budget for budget in limits.budgets_bytes if budget >= self.floor)
        if not self.budgets:
            raise ValueError(
                f"the largest budget is {limits.high_bytes:,} bytes, the smallest plan of these fields takes "
                f"{self.floor:,} bytes; raise a budget to at least that"
            )
        self.per_seed = 1 + len(self.budgets)
        self.recipe: dict[str, Any] = {}  # what seeds behind the first walk with
        self.started = time.monotonic() - folder.elapsed_seconds()

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
                workers=1,
                already=len(self.records),
                again=len(running),
                standing=self._standing(),
            )
        )
        if len(self.budgets) < len(self.limits.budgets_bytes):
            beyond = ", ".join(f"{b:,}" for b in self.limits.budgets_bytes if b < self.floor)
            text = (
                f"no plan meets {beyond} bytes: the smallest takes {self.floor:,}; these budgets are left out"
            )
            self.folder.log("notice", text=text)
            self.tell(Notice(text))
        try:
            for place, seed in enumerate(self.config.seed_list):
                first = place * self.per_seed
                trunk = cache(partial(self._trunk, first, seed))  # made or read when first needed
                self._walk(range(first + 1, first + self.per_seed), seed, trunk, self.recipe if place else {})
                if place == 0:
                    self.recipe = self._best_recipe(seed, trunk)
        except _OutOfTime:
            left = self._left()
            text = f"the time limit was reached with {left} points left; raise time_limit to go on"
            self.folder.log("notice", text=text)
            self.tell(Notice(text))
        if not self.config.single_spaces:
            self.folder.log("ended", trials=len(self.records))
            self.tell(StudyEnded(len(self.records), self._standing()))

    def _walk(
        self,
        numbers: Sequence[int],
        seed: int,
        make_trunk: Callable[[], Trunk],
        recipe: dict[str, Any],
        folder: Path | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """One trial of `numbers` for every budget. `ended` is called behind each, and may end the walk."""
        done = {record.number for record in self.records}
        if done.issuperset(numbers):
            return
        trunk = make_trunk()
        planner = JointPlanner(self.inputs.data, self.inputs.spec, trunk, seed)
        assign = {
            number: self._point_assignment(number, seed, budget, recipe)
            for number, budget in zip(numbers, self.budgets, strict=True)
        }

        def saw(point: Point) -> None:
            number = numbers[self.budgets.index(point.budget_bytes)]
            if number not in {record.number for record in self.records}:
                if planner.last is not None:
                    self.folder.trial(number).mkdir(parents=True, exist_ok=True)
                    write_json(
                        self.folder.trial(number) / EXPLAINED, explained(planner.last, self.inputs.spec)
                    )
                self._point(assign[number], point)
            ended()
            if number != numbers[-1]:
                self._check_time()
                self._start(assign[number + 1])

        self._check_time()
        self._start(assign[next(number for number in numbers if number not in done)])
        points = walk(
            *(self.inputs.data, self.inputs.spec, self.config.model, trunk, self.budgets),
            *(planner, self.config.joint.model_copy(update=recipe)),
            seed=seed,
            progress=saw,
            checkpoint=folder or self.folder.path / "walks" / str(seed),
        )
        for point in points:  # those whose records a crash came before
            number = numbers[self.budgets.index(point.budget_bytes)]
            if number not in {record.number for record in self.records}:
                self._point(assign[number], point)

    def _best_recipe(self, seed: int, trunk: Callable[[], Trunk]) -> dict[str, Any]:
        """Walk with as many recipes as the study asks for; the parameters of the best, {} for the user's."""
        joint, count = self.config.joint, len(self.budgets)
        usual = {name: getattr(joint, name) for name in DOMAINS}
        walked = [self._walked(usual, range(1, 1 + count))]
        for recipe in range(1, joint.recipes):
            numbers = range(RECIPES + (recipe - 1) * count, RECIPES + recipe * count)
            folder = self.folder.path / "walks" / str(seed) / f"recipe-{recipe}"
            result = folder / "recipe.json"
            if result.is_file():
                facts = json.loads(result.read_text(encoding="utf-8"))
                walked.append(self._walked(facts["parameters"], numbers, facts["stopped"]))
                continue
            parameters = next_recipe(walked, seed)

            def ended(parameters: dict[str, Any] = parameters, numbers: Sequence[int] = numbers) -> None:
                if falls_behind(walked, self._walked(parameters, numbers), seed):
                    raise _FellBehind

            stopped = False
            try:
                self._walk(numbers, seed, trunk, parameters, folder, ended)
            except _FellBehind:
                stopped = True
            folder.mkdir(parents=True, exist_ok=True)
            write_json(result, {"parameters": parameters, "stopped": stopped})
            walked.append(self._walked(parameters, numbers, stopped))
        best = best_recipe(walked)
        return dict(walked[best].parameters) if best else {}

    def _walked(self, parameters: dict[str, Any], numbers: Sequence[int], stopped: bool = False) -> Walked:
        """What the records tell of a recipe's walk so far."""
        found = {record.number: record for record in self.records}
        ended = [found[number] for number in numbers if number in found]
        worth = {"auc": lambda r: r.valid_auc, "logloss": lambda r: -r.valid_logloss}[self.config.objective]
        values, spent = tuple(map(worth, ended)), tuple(record.steps > 0 for record in ended)
        return Walked(parameters, values, spent, stopped)

    def _trunk(self, number: int, seed: int) -> Trunk:
        """Trained, or read back where an earlier call trained it, in the basis that the walk uses."""
        path = trunk_file(self.folder, seed)
        if self.folder.record(number) is None or not path.is_file():
            self._start(self._trunk_assignment(number, seed))
            tune = self.config.joint.tune
            trunk = train_trunk(
                *(self.inputs.data, self.inputs.stats, self.config.model, self.config.training),
                trainings=0.0 if tune == "off" else tune,
                seed=seed,
                progress=lambda report: self._progress(number, report),
            )
            trunk = rotated(trunk, self.inputs.data, self.inputs.spec, seed)
            self._keep_trunk(number, seed, trunk, path)
            return trunk
        return read_trunk(self.config, self.folder, self.inputs, seed, number)

    def _keep_trunk(self, number: int, seed: int, trunk: Trunk, path: Path) -> None:
        spec = self.inputs.spec
        table = table_under(spec, uniform_fields(spec, 32), Weights(trunk.rows), trunk.training.row_optimizer)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "training": trunk.training.model_dump(mode="json"),
                "valid": asdict(trunk.valid),
                "test": asdict(trunk.test),
                "ledger": asdict(trunk.ledger),
                "tuning_seconds": sum(tried.cpu_seconds for tried in trunk.tuning),
                "tried": [
                    {
                        "training": tried.training.model_dump(mode="json"),
                        "epochs": tried.epochs,
                        "valid": None if tried.valid is None else asdict(tried.valid),
                    }
                    for tried in trunk.tuning
                ],
            },
        )
        self._keep_tuning(number, seed, trunk)
        ledger = trunk.ledger
        on_cpu = not torch.cuda.is_available()
        self._end(
            self._trunk_assignment(number, seed),
            table.pack(),
            trunk.network,
            valid=trunk.valid,
            test=trunk.test,
            seconds=ledger.seconds,
            cost_seconds=ledger.cost_seconds(on_cpu),
            samples=ledger.samples,
            steps=ledger.steps,
            peak_table_bytes=ledger.peak_table_bytes,
        )

    def _keep_tuning(self, number: int, seed: int, trunk: Trunk) -> None:
        """A record of every short training, so that it counts in the cost of the front."""
        first = TUNING + number // self.per_seed * TUNING_OF_A_SEED
        for place, tried in enumerate(trunk.tuning):
            names = ("learning_rate", "table_learning_rate", "l2_rows")
            settings = {name: getattr(tried.training, name) for name in names} | {"epochs": tried.epochs}
            name = f"full_precision({', '.join(f'{key}={value}' for key, value in settings.items())})"
            record = TrialRecord(
                *(first + place, name, "full_precision", settings, seed, "short"),
                "failed" if tried.valid is None else "complete",
                valid_auc=None if tried.valid is None else tried.valid.auc,
                valid_logloss=None if tried.valid is None else tried.valid.logloss,
                seconds=tried.cpu_seconds,
                cost_seconds=tried.cpu_seconds,
                samples=tried.steps * tried.training.batch_size,
                steps=tried.steps,
                reason="diverged" if tried.valid is None else "",
            )
            self.folder.trial(record.number).mkdir(parents=True, exist_ok=True)
            self.folder.finish(record)

    def _point(self, assignment: Assignment, point: Point) -> None:
        reason = "fine-tuned" if point.fine_tuned else "as packed from its larger neighbour"
        measured = measured_point(self.config, point)
        self._end(assignment, point.packed, point.network, **measured, reason=reason)

    def _start(self, assignment: Assignment) -> None:
        self.folder.assign(assignment)
        number, seed = assignment.number, assignment.seed
        self.folder.log("started", number=number, candidate=assignment.candidate, seed=seed)
        self.tell(TrialStarted(number, assignment.candidate, assignment.method, seed, assignment.role))

    def _trunk_assignment(self, number: int, seed: int) -> Assignment:
        role: Role = "repeat" if number else "reference"
        return Assignment(number, candidate_name(FullPrecision()), "full_precision", {}, seed, role)

    def _point_assignment(self, number: int, seed: int, budget: int, recipe: dict[str, Any]) -> Assignment:
        role: Role = "search" if seed == self.config.seed else "repeat"
        parameters = {"budget": budget, **recipe}
        return Assignment(number, joint_name(parameters), JOINT, parameters, seed, role)

    def _end(self, assignment: Assignment, packed: Packed, network: torch.nn.Module, **measured: Any) -> None:
        record = keep_trial(self.folder, self.inputs, self.records, assignment, packed, network, **measured)
        self.records.append(record)
        self.tell(TrialEnded(record, self._standing()))

    def _progress(self, number: int, report: Progress) -> None:
        best = report.best
        self.tell(
            TrialProgress(
                *(number, report.stage, report.epoch, report.epochs, report.step, report.steps_per_epoch),
                *(best.auc if best else None, best.logloss if best else None),
            )
        )

    def _check_time(self) -> None:
        limit = self.config.time_limit_seconds
        if limit is not None and time.monotonic() - self.started >= limit:
            raise _OutOfTime

    def _standing(self) -> Any:
        return standing_of(
            *(self.records, make_points(self.records), [], self._left(), 1),
            *(self.limits.budgets_bytes, self.config.objective),
        )

    def _left(self) -> int:
        """Trials that have not ended, as if no recipe were stopped early."""
        wanted = set(range(len(self.config.seed_list) * self.per_seed))
        recipes = self.config.joint.recipes - 1
        wanted |= set(range(RECIPES, RECIPES + recipes * len(self.budgets)))
        for ended in self.folder.path.glob("walks/*/recipe-*/recipe.json"):
            at = RECIPES + (int(ended.parent.name.split("-")[1]) - 1) * len(self.budgets)
            wanted -= set(range(at, at + len(self.budgets)))
        return len(wanted - {record.number for record in self.records})
