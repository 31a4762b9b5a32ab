"""`search_space: joint`: one walk down all budgets per seed, kept as trials of an ordinary run folder.

Per seed a full-precision trunk is trained (the reference), then `autoembed.joint.walk` makes one model for
every budget, each starting from its larger neighbour. Every model is a trial with a record and its files, so
that the front, the plots, the picks and the export read it as any other. A walk that was killed goes on after
its last finished point.

    RUN/trials/NNNN/         the trunk, then the points, seed after seed; numbers are fixed by the study
    RUN/walks/SEED/          where the walk stands, what the trunk was trained with, and what explains points
"""

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from autoembed.export.candidate import load_candidate, save_candidate
from autoembed.front import make_points
from autoembed.joint.explain import explained
from autoembed.joint.planner import JointPlanner, rotated, smallest_bytes
from autoembed.joint.table import Weights, table_under
from autoembed.joint.trunk import Trunk, train_trunk
from autoembed.joint.walk import Point, walk
from autoembed.ledger import Ledger
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.plans import uniform_fields
from autoembed.metrics import Metrics
from autoembed.packed import Packed, PackedTable
from autoembed.plan import plan_bytes
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
from autoembed.search.limits import Limits, candidate_name
from autoembed.search.standing import standing_of
from autoembed.search.study import JOINT, StudyConfig
from autoembed.space import Space
from autoembed.training import Progress
from autoembed.training_config import TrainingConfig

NAME = JOINT
FIRST_SINGLE = 10_000  # trials of single methods have numbers from here on where a joint search comes first
EXPLAINED = "explained.json"  # in a point's trial folder: what every field and group got, and why
SPACE = Space(NAME, (), ())  # nothing is sampled


class _OutOfTime(Exception):
    """The time limit was reached between two points."""


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
                self._walk(place * self.per_seed, seed)
        except _OutOfTime:
            left = len(self.config.seed_list) * self.per_seed - len(self.records)
            text = f"the time limit was reached with {left} points left; raise time_limit to go on"
            self.folder.log("notice", text=text)
            self.tell(Notice(text))
        if not self.config.single_spaces:
            self.folder.log("ended", trials=len(self.records))
            self.tell(StudyEnded(len(self.records), self._standing()))

    def _walk(self, first: int, seed: int) -> None:
        """The trunk, trial `first`, and one trial for every budget behind it."""
        done = {record.number for record in self.records}
        if all(first + number in done for number in range(self.per_seed)):
            return
        trunk = self._trunk(first, seed)
        planner = JointPlanner(self.inputs.data, self.inputs.spec, trunk, seed)
        folder = self.folder.path / "walks" / str(seed)

        def saw(point: Point) -> None:
            number = first + 1 + self.budgets.index(point.budget_bytes)
            if number not in {record.number for record in self.records}:
                if planner.last is not None:
                    self.folder.trial(number).mkdir(parents=True, exist_ok=True)
                    write_json(
                        self.folder.trial(number) / EXPLAINED, explained(planner.last, self.inputs.spec)
                    )
                self._point(number, seed, point)
            if number + 1 < first + self.per_seed:
                self._check_time()
                self._start(number + 1, seed)

        self._check_time()
        unfinished = [n for n in range(first + 1, first + self.per_seed) if n not in done]
        self._start(unfinished[0], seed)
        points = walk(
            *(self.inputs.data, self.inputs.spec, self.config.model, trunk, self.budgets),
            *(planner, self.config.joint),
            seed=seed,
            progress=saw,
            checkpoint=folder,
        )
        for point in points:  # those whose records a crash came before
            number = first + 1 + self.budgets.index(point.budget_bytes)
            if number not in {record.number for record in self.records}:
                self._point(number, seed, point)

    def _trunk(self, number: int, seed: int) -> Trunk:
        """Trained, or read back where an earlier call trained it, in the basis that the walk uses."""
        path = self.folder.path / "walks" / str(seed) / "trunk.json"
        if self.folder.record(number) is None or not path.is_file():
            self._start(number, seed)
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
        facts = json.loads(path.read_text(encoding="utf-8"))
        packed, network = load_candidate(self.folder.trial(number), self.config.model, self.inputs.data)
        table = PackedTable(packed)
        rows = torch.cat([table.decode(field) for field in range(len(packed.plan.fields))])
        return Trunk(
            rows,
            network,
            TrainingConfig(**facts["training"]),
            Metrics(**facts["valid"]),
            Metrics(**facts["test"]),
            Ledger(**facts["ledger"]),
            (),
            (),
        )

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
        packed = table.pack()
        # tuning belongs to what the front costs, the training of the reference is the unit of cost
        extra = sum(tried.cpu_seconds for tried in trunk.tuning)
        ledger = trunk.ledger
        on_cpu = not torch.cuda.is_available()
        self._end(
            number,
            seed,
            packed,
            trunk.network,
            valid=trunk.valid,
            test=trunk.test,
            seconds=ledger.seconds,
            cost_seconds=ledger.cost_seconds(on_cpu),
            samples=ledger.samples,
            steps=ledger.steps,
            peak_table_bytes=ledger.peak_table_bytes,
            reason=f"{extra:.1f} processor seconds of tuning came before" if extra else "",
        )

    def _point(self, number: int, seed: int, point: Point) -> None:
        on_cpu = not torch.cuda.is_available()
        rows = self.inputs.stats.rows * self.config.model.dim * 4
        self._end(
            number,
            seed,
            point.packed,
            point.network,
            valid=point.valid,
            test=point.test,
            seconds=point.seconds,
            cost_seconds=point.cpu_seconds if on_cpu else point.seconds,
            samples=point.steps * self.config.training.batch_size,
            steps=point.steps,
            # latent rows and the two moments of their optimizer, and the sensitivities
            peak_table_bytes=4 * rows,
            reason="fine-tuned" if point.fine_tuned else "as packed from its larger neighbour",
        )

    def _start(self, number: int, seed: int) -> None:
        assignment = self._assignment(number, seed)
        self.folder.assign(assignment)
        self.folder.log("started", number=number, candidate=assignment.candidate, seed=seed)
        self.tell(
            TrialStarted(number, assignment.candidate, assignment.method, assignment.seed, assignment.role)
        )

    def _assignment(self, number: int, seed: int) -> Assignment:
        place = number % self.per_seed
        is_first = number < self.per_seed
        if place == 0:
            role: Role = "reference" if is_first else "repeat"
            return Assignment(number, candidate_name(FullPrecision()), "full_precision", {}, seed, role)
        budget = self.budgets[place - 1]
        role = "search" if is_first else "repeat"
        return Assignment(number, f"{NAME}(budget={budget})", NAME, {"budget": budget}, seed, role)

    def _end(
        self,
        number: int,
        seed: int,
        packed: Packed,
        network: torch.nn.Module,
        *,
        valid: Metrics,
        test: Metrics,
        **measured: Any,
    ) -> None:
        """Files first, then the record: with it the trial is finished."""
        folder = self.folder.trial(number)
        if not (folder / "assignment.json").exists():
            self.folder.assign(self._assignment(number, seed))
        save_candidate(folder, packed, network)
        size = plan_bytes(packed.plan)
        entry = self._assignment(number, seed)
        kept = packed.plan.kept_rows
        record = TrialRecord(
            number=number,
            candidate=entry.candidate,
            method=entry.method,
            parameters=entry.parameters,
            seed=seed,
            role=entry.role,
            state="complete",
            bytes={**asdict(size), "total": size.total},
            vocabulary_bytes=sum(
                self.inputs.data.vocabulary(field).truncated(rows).nbytes for field, rows in enumerate(kept)
            ),
            valid_auc=valid.auc,
            valid_logloss=valid.logloss,
            test_auc=test.auc,
            test_logloss=test.logloss,
            **measured,
        )
        reference = next((r for r in self.records if r.role == "reference"), record)
        record = replace(record, fte=record.cost / reference.cost if reference.cost else None)
        self.folder.finish(record)
        self.records.append(record)
        self.folder.log("complete", number=number, reason=record.reason)
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
        left = len(self.config.seed_list) * self.per_seed - len(self.records)
        return standing_of(
            *(self.records, make_points(self.records), [], left, 1),
            *(self.limits.budgets_bytes, self.config.objective),
        )
