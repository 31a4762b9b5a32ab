"""One seed of a joint search, in a worker process: its trunk, then its walk down all budgets.

    {"event": "started" | "progress", ...}     the fields of that event
    {"event": "ended", "number": n}            trial n has its record

are told as the progress of the seed's trunk, whose trial number stands for the whole seed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from autoembed.joint.basis import in_basis
from autoembed.joint.checkpoint import settled
from autoembed.joint.explain import explained
from autoembed.joint.planner import JointPlanner, smallest_bytes
from autoembed.joint.table import Weights, table_under
from autoembed.joint.trunk import MOST_TRIED, Trunk, train_trunk
from autoembed.joint.walk import Point, walk
from autoembed.methods.base import TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.plans import uniform_fields
from autoembed.packed import Packed
from autoembed.record import Role, TrialRecord, write_json
from autoembed.search.candidate import opened, summary
from autoembed.search.folder import Assignment, FailedIn, RunFolder
from autoembed.search.inputs import Inputs
from autoembed.search.joint_trials import (
    EXPLAINED,
    FIRST_SINGLE,
    RECIPES,
    TUNING,
    joint_name,
    keep_trial,
    measured_point,
    read_recipe,
    read_trunk,
    trunk_file,
)
from autoembed.search.limits import Limits, candidate_name, limits_of
from autoembed.search.recipes import NAMES, Walked, best_recipe, falls_behind, next_recipe
from autoembed.search.study import JOINT, StudyConfig

Tell = Callable[[dict[str, Any]], None]
Ready = tuple[Trunk, Inputs]  # a trunk, and inputs in the order of its rows


class _OutOfTime(Exception):
    """The time limit was reached between two points."""


class _FellBehind(Exception):
    """A recipe's walk is not worth its smaller budgets."""


def walk_seed(run: Path, assignment: Assignment, progress: Tell) -> dict[str, Any]:
    """Everything of one seed that is not finished; `assignment` is that of its trunk.

    Returns {"out_of_time": whether points are left}. Raises Diverged where the trunk diverges, FailedIn
    where anything fails behind it.
    """
    config, inputs = opened(run)
    limits = limits_of(config, inputs.spec)
    seed_walk = _SeedWalk(config, RunFolder(run), inputs, limits, assignment.seed, progress)
    try:
        seed_walk.run()
    except _OutOfTime:
        return {"out_of_time": True}
    except Exception as error:
        if seed_walk.folder.record(assignment.number) is None:
            raise
        # the trunk is finished: nothing of what failed later belongs into its folder
        raise FailedIn(seed_walk.folder.path / "walks" / str(assignment.seed)) from error
    return {"out_of_time": False}


def budgets_within(limits: Limits, spec: TableSpec) -> tuple[int, ...]:
    """The budgets that some plan meets, largest first. Raises ValueError where there is none."""
    floor = smallest_bytes(spec)
    budgets = tuple(budget for budget in limits.budgets_bytes if budget >= floor)
    if not budgets:
        raise ValueError(
            f"the largest budget is {limits.high_bytes:,} bytes, the smallest plan of these fields takes "
            f"{floor:,} bytes; raise a budget to at least that"
        )
    return budgets


def trunk_assignment(number: int, seed: int) -> Assignment:
    """The full-precision training of a seed; the first one is the reference."""
    role: Role = "repeat" if number else "reference"
    return Assignment(number, candidate_name(FullPrecision()), "full_precision", {}, seed, role)


class _SeedWalk:
    """One call of `walk_seed`."""

    def __init__(
        self, config: StudyConfig, folder: RunFolder, inputs: Inputs, limits: Limits, seed: int, tell: Tell
    ) -> None:
        self.config, self.folder, self.inputs, self.seed, self.tell = config, folder, inputs, seed, tell
        self.records = [record for record in folder.records() if record.number < FIRST_SINGLE]
        self.budgets = budgets_within(limits, inputs.spec)
        self.per_seed = 1 + len(self.budgets)
        self.started = time.monotonic() - folder.elapsed_seconds()

    def run(self) -> None:
        first_seed = self.config.seed_list[0]
        recipe: dict[str, Any] = {}
        if self.seed != first_seed:  # finished by then: nothing is walked, only the best is looked up
            recipe = self._best_recipe(first_seed, cache(partial(self._trunk, 0, first_seed)))
        first = self.config.seed_list.index(self.seed) * self.per_seed
        trunk = cache(partial(self._trunk, first, self.seed))  # made or read when first needed
        if self.folder.record(first) is None:  # also where all points are there and its folder was removed
            trunk()
        self._walk(range(first + 1, first + self.per_seed), self.seed, trunk, recipe)
        if self.seed == first_seed:
            self._best_recipe(self.seed, trunk)

    def _walk(
        self,
        numbers: Sequence[int],
        seed: int,
        make_trunk: Callable[[], Ready],
        recipe: dict[str, Any],
        folder: Path | None = None,
        ended: Callable[[Sequence[int]], None] = lambda numbers: None,
    ) -> None:
        """One trial of `numbers` for every budget.

        `ended` is called behind each, also behind those of an earlier call, with the numbers up to there, and
        may end the walk.
        """
        if all(map(self._is_kept, numbers)):
            for place in range(len(numbers)):
                ended(numbers[: place + 1])
            return
        trunk, inputs = make_trunk()
        if folder is not None:  # the first walk has paid for it
            trunk = replace(trunk, basis_seconds=0.0, basis_cpu_seconds=0.0)
        planner = JointPlanner(inputs.data, inputs.spec, trunk, seed)
        assign = {
            number: self._point_assignment(number, seed, budget, recipe)
            for number, budget in zip(numbers, self.budgets, strict=True)
        }

        def why() -> dict[str, Any]:
            assert planner.last is not None, "a plan was made"
            content = explained(planner.last, inputs.spec)
            if planner.last.solution.budget == self.budgets[0]:
                content["planning_seconds"] += trunk.basis_cpu_seconds
            return content

        def saw(point: Point) -> None:
            place = self.budgets.index(point.budget_bytes)
            # of earlier calls are those whose records a crash came before, or whose folders were removed
            if not self._is_kept(numbers[place]):
                self._point(assign[numbers[place]], point, inputs)
            ended(numbers[: place + 1])
            if place + 1 < len(numbers):
                start(numbers[place + 1])

        def start(number: int) -> None:
            self._check_time()
            if not self._is_kept(number):
                self._start(assign[number])

        start(numbers[0])
        walk(
            *(inputs.data, inputs.spec, self.config.model, trunk, self.budgets),
            *(planner, self.config.joint.model_copy(update=recipe)),
            seed=seed,
            progress=saw,
            explain=why,
            checkpoint=folder or self.folder.path / "walks" / str(seed),
        )

    def _is_kept(self, number: int) -> bool:
        return any(record.number == number for record in self.records)

    def _best_recipe(self, seed: int, trunk: Callable[[], Ready]) -> dict[str, Any]:
        """Walk with as many recipes as the study asks for; the parameters of the best, {} for the user's."""
        if self.config.joint.recipes == 1:  # the first seed may not have a point yet
            return {}
        joint, count = self.config.joint, len(self.budgets)
        settings = settled(self.folder.path / "walks" / str(seed), joint)
        usual = {name: getattr(joint, name) for name in NAMES} | asdict(settings)
        walked = [self._walked(usual, range(1, 1 + count))]
        for recipe in range(1, joint.recipes):
            numbers = range(RECIPES + (recipe - 1) * count, RECIPES + recipe * count)
            folder = self.folder.path / "walks" / str(seed) / f"recipe-{recipe}"
            result = folder / "recipe.json"
            if result.is_file():
                facts = read_recipe(result)
                if not facts["stopped"]:  # makes what was removed of it again
                    self._walk(numbers, seed, trunk, facts["parameters"], folder)
                walked.append(self._walked(facts["parameters"], numbers, facts["stopped"]))
                continue
            parameters = next_recipe(walked, seed)

            def ended(so_far: Sequence[int], parameters: dict[str, Any] = parameters) -> None:
                if falls_behind(walked, self._walked(parameters, so_far), seed):
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

    def _trunk(self, number: int, seed: int) -> Ready:
        """Trained, or read back where an earlier call trained it, as the walk writes it down."""
        path = trunk_file(self.folder, seed)
        if self.folder.record(number) is None or not path.is_file():
            self._start(trunk_assignment(number, seed))
            tune = self.config.joint.tune
            trunk = train_trunk(
                *(self.inputs.data, self.inputs.stats, self.config.model, self.config.training),
                trainings=0.0 if tune == "off" else tune,
                seed=seed,
                progress=lambda report: self.tell({"event": "progress", "number": number, **summary(report)}),
            )
            inputs, ordered = self.inputs, self.config.joint.order == "learned"
            trunk, order = in_basis(trunk, inputs.data, inputs.stats, seed, ordered=ordered)
            if order is not None:
                trunk, inputs = trunk.reordered(order), inputs.reordered(order)
            self._keep_trunk(number, seed, trunk, inputs)
            return trunk, inputs
        return read_trunk(self.config, self.folder, self.inputs, seed, number)

    def _keep_trunk(self, number: int, seed: int, trunk: Trunk, inputs: Inputs) -> None:
        spec, path = inputs.spec, trunk_file(self.folder, seed)
        table = table_under(spec, uniform_fields(spec, 32), Weights(trunk.rows), trunk.training.row_optimizer)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            path,
            {
                "training": trunk.training.model_dump(mode="json"),
                "valid": asdict(trunk.valid),
                "test": asdict(trunk.test),
                "ledger": asdict(trunk.ledger),
                "basis_seconds": trunk.basis_seconds,
                "basis_cpu_seconds": trunk.basis_cpu_seconds,
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
            trunk_assignment(number, seed),
            table.pack(),
            trunk.network,
            inputs,
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
        first = TUNING + number // self.per_seed * MOST_TRIED
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

    def _point(self, assignment: Assignment, point: Point, inputs: Inputs) -> None:
        start = "its larger neighbour" if self.config.joint.max_drop is None else "the first budget's"
        from_trunk = point.afresh or point.budget_bytes == self.budgets[0]
        reason = f"as packed from {'the trunk' if from_trunk else start}"
        if point.fine_tuned:
            reason = "fine-tuned from the trunk" if point.afresh else "fine-tuned"
            if point.teacher is not None and point.rate is not None:  # earlier versions kept neither
                reason += f": teacher {point.teacher:g}, rate {point.rate:g}"
        measured = measured_point(self.config, point)
        if point.explained is not None:
            self.folder.trial(assignment.number).mkdir(parents=True, exist_ok=True)
            tried = {"tried": [asdict(trial) for trial in point.tried]} if point.tried else {}
            write_json(self.folder.trial(assignment.number) / EXPLAINED, point.explained | tried)
        self._end(assignment, point.packed, point.network, inputs, **measured, reason=reason)

    def _start(self, assignment: Assignment) -> None:
        self.folder.assign(assignment)
        number, seed = assignment.number, assignment.seed
        self.folder.log("started", number=number, candidate=assignment.candidate, seed=seed)
        about = {"candidate": assignment.candidate, "method": assignment.method}
        self.tell({"event": "started", "number": number, **about, "seed": seed, "role": assignment.role})

    def _point_assignment(self, number: int, seed: int, budget: int, recipe: dict[str, Any]) -> Assignment:
        role: Role = "search" if seed == self.config.seed else "repeat"
        parameters = {"budget": budget, **recipe}
        return Assignment(number, joint_name(parameters), JOINT, parameters, seed, role)

    def _end(
        self,
        assignment: Assignment,
        packed: Packed,
        network: torch.nn.Module,
        inputs: Inputs,
        **measured: Any,
    ) -> None:
        record = keep_trial(self.folder, inputs, self.records, assignment, packed, network, **measured)
        self.records.append(record)
        self.tell({"event": "ended", "number": record.number})

    def _check_time(self) -> None:
        limit = self.config.time_limit_seconds
        if limit is not None and time.monotonic() - self.started >= limit:
            raise _OutOfTime
