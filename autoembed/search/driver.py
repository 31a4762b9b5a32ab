"""Run a study, or go on with one: hand work to the workers, write records, tell what happens.

The search can be killed at any moment: what a trial trains is on disk before it starts, and its record,
written in one step, is what makes it finished.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from autoembed.budget import format_bytes
from autoembed.config import ConfigError
from autoembed.front import make_points, pareto
from autoembed.methods import make_method
from autoembed.methods.base import Method
from autoembed.record import TrialRecord, write_json
from autoembed.search.agenda import Agenda, History, Rejected
from autoembed.search.events import (
    Event,
    Listener,
    Notice,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialProgress,
    TrialStarted,
)
from autoembed.search.folder import Assignment, RunFolder, read_records
from autoembed.search.identity import check_identity, environment
from autoembed.search.inputs import Inputs, prepare_inputs
from autoembed.search.joint import run_joint
from autoembed.search.joint_trials import FIRST_SINGLE
from autoembed.search.limits import Limits, candidate_name, limits_of
from autoembed.search.pool import Done, Failed, Pool, Report
from autoembed.search.preview import extents
from autoembed.search.proposals import Proposals
from autoembed.search.study import StudyConfig, StudyError, write_config
from autoembed.space import Space, load_spaces
from autoembed_kernels.native.loader import library, must_compile

TRAINER = "autoembed.search.candidate:train_candidate"
POLL_SECONDS = 0.5  # how late Ctrl-C or a full second of the clock may be noticed


def run_study(
    config: StudyConfig, run_dir: Path, *, progress: Listener | None = None, trainer: str = TRAINER
) -> list[TrialRecord]:
    """Search until the trials, the time limit and the repeats are done; returns all records by number.

    Where `run_dir` holds a search of the same study it goes on, and finished trials are kept. Raises
    ConfigError where it holds another study, BlockingIOError where another process searches in it,
    StudyError where nothing can be searched. KeyboardInterrupt (and SIGTERM) stops all workers and leaves
    a folder to go on from. `trainer` is "module:function", see `worker`.
    """
    folder = RunFolder(run_dir.resolve())
    tell: Listener = progress or (lambda event: None)
    folder.refuse_foreign()
    with folder.locked(), _termination_as_interrupt():
        space = load_spaces(config.single_spaces)
        inputs = prepare_inputs(config, folder.path, tell)
        limits = limits_of(config, inputs.spec)
        baselines = space.baselines(inputs.spec, limits.budgets_bytes)
        if config.single_spaces:
            _require_feasible(space, inputs, limits, baselines)
        check_identity(folder, config, inputs.data.fingerprint, space)
        # the folder needs the prepared data from here on, no longer the raw logs
        write_config(config.model_copy(update={"data": str(inputs.data.path)}), folder.config)
        write_json(folder.environment, environment())
        if must_compile():  # here, so that no worker does it, and no training's time counts it
            _notice(folder, tell, "compiling the kernels for this processor, which is done once")
        library()  # says so where there is none, in place of every worker to its log
        if config.is_joint:
            try:
                run_joint(config, folder, inputs, limits, tell)
            except KeyboardInterrupt:
                finished = len(folder.records())
                _stopped(folder, tell, f"{finished} trials are finished and kept, walks go on behind them")
                raise
            if not config.single_spaces:
                return folder.records()
        assignments = {number: folder.assignment(number) for number in folder.numbers()}
        history = History(
            tuple(folder.records()),
            {number: entry for number, entry in assignments.items() if entry is not None},
            folder.elapsed_seconds(),
            first=FIRST_SINGLE if config.is_joint else 0,
        )
        folder.log("opened", environment=environment())
        proposals = Proposals(
            folder.journal,
            space,
            config.sampler,
            config.seed,
            maximize=config.objective == "auc",
            notice=lambda text: _notice(folder, tell, text),
        )
        train_rows = inputs.data.rows("train")
        first = (baselines, _warm(config))
        agenda = Agenda(config, inputs.spec, space, limits, proposals, history, *first, train_rows)
        tell(
            StudyStarted(
                str(folder.path),
                config.objective,
                limits.budgets_bytes,
                limits.full_bytes,
                config.workers,
                len(history.records),
                len(history.interrupted),
                agenda.standing(),
            )
        )
        session = _Session(folder, agenda, tell)
        try:
            with Pool(folder.path, trainer, config.workers, folder.worker_log) as pool:
                session.run(pool)
        except KeyboardInterrupt:
            again = session.running
            _stopped(
                folder, tell, f"{len(agenda.records)} trials are finished and kept, {again} will run again"
            )
            raise
        session.end()
    return folder.records()


class _Session:
    """One call of `run_study`: what is running now, and the records that it writes."""

    def __init__(self, folder: RunFolder, agenda: Agenda, tell: Callable[[Event], None]) -> None:
        self._folder = folder
        self._agenda = agenda
        self._tell = tell
        self._running: dict[int, Assignment] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    def run(self, pool: Pool) -> None:
        while self._fill(pool) or self._running:
            message = pool.wait(POLL_SECONDS)
            if isinstance(message, Report):
                self._tell(TrialProgress(message.number, **message.values))
            elif isinstance(message, Done):
                assignment = self._running.pop(message.number)
                self._end(_record(assignment, state="complete", **message.outcome))
            elif isinstance(message, Failed):
                assignment = self._running.pop(message.number)
                self._end(_record(assignment, state="failed", reason=message.reason))
                if assignment.role == "reference":
                    raise StudyError(
                        f"the full-precision reference failed, and everything is measured against it: "
                        f"{message.reason}; see {self._folder.trial(message.number)} and change the "
                        "training section of the study"
                    )

    def end(self) -> None:
        why = self._agenda.why_sampling_ended
        if why:
            _notice(self._folder, self._tell, f"no further candidates: {why}")
        left = self._agenda.left()
        if left:
            text = f"the time limit was reached with {left} trainings left; raise time_limit to go on"
            _notice(self._folder, self._tell, text)
        self._folder.log("ended", trials=len(self._agenda.records))
        self._tell(StudyEnded(len(self._agenda.records), self._agenda.standing()))

    def _fill(self, pool: Pool) -> bool:
        """Hand out work while a worker is free; whether any trial was started."""
        started = False
        while pool.free:
            work = self._agenda.next()
            if work is None:
                break
            assignment = work.assignment if isinstance(work, Rejected) else work
            self._folder.assign(assignment)
            if isinstance(work, Rejected):
                self._end(_record(assignment, state="rejected", reason=work.reason))
                continue
            pool.submit(assignment.number)
            self._running[assignment.number] = assignment
            started = True
            self._folder.log(
                "started", number=assignment.number, candidate=assignment.candidate, seed=assignment.seed
            )
            self._tell(
                TrialStarted(
                    assignment.number,
                    assignment.candidate,
                    assignment.method,
                    assignment.seed,
                    assignment.role,
                )
            )
        return started

    def _end(self, record: TrialRecord) -> None:
        record = self._agenda.costed(record)
        self._folder.finish(record)
        self._agenda.finish(record)
        for late in self._agenda.cost_late():
            self._folder.finish(late)
        self._folder.log(record.state, number=record.number, reason=record.reason)
        self._tell(TrialEnded(record, self._agenda.standing()))


def _record(assignment: Assignment, **outcome: Any) -> TrialRecord:
    """Raises StudyError where a worker measured what this program does not know."""
    unknown = set(outcome) - {field.name for field in fields(TrialRecord)}
    if unknown:
        raise StudyError(
            f"a worker reports {', '.join(sorted(unknown))}: autoembed was changed while the search ran; "
            "start the same command again, finished trials are kept"
        )
    return TrialRecord(
        number=assignment.number,
        candidate=assignment.candidate,
        method=assignment.method,
        parameters=assignment.parameters,
        seed=assignment.seed,
        role=assignment.role,
        **outcome,
    )


def _warm(config: StudyConfig) -> list[Method]:
    """The settings on the validation fronts of earlier searches, in their order, without repeats.

    A method or knob that this version does not know is left out: the earlier search may be older.
    """
    found: dict[str, Method] = {}
    for run in config.warm_start:
        for point in pareto(make_points(read_records(Path(run))), config.objective):
            try:
                method = make_method(point.method, point.parameters)
            except ConfigError:
                continue
            found.setdefault(candidate_name(method), method)
    return list(found.values())


def _require_feasible(space: Space, inputs: Inputs, limits: Limits, baselines: Sequence[Method]) -> None:
    """Raise StudyError where every candidate is beyond the largest budget."""
    rows = extents(space, inputs.spec, baselines)
    possible = [row for row in rows if not row.problem]
    if not possible:
        raise StudyError(f"search space {space.source}: no candidate can be stored; {rows[0].problem}")
    smallest = min(possible, key=lambda row: row.low_bytes)
    if smallest.low_bytes > limits.high_bytes:
        raise StudyError(
            f"search space {space.source}: the smallest candidate, {smallest.method} ({smallest.settings}), "
            f"needs {smallest.low_bytes} bytes ({format_bytes(smallest.low_bytes)}), the largest budget is "
            f"{limits.high_bytes} bytes ({format_bytes(limits.high_bytes)}); raise a budget to at least the "
            "former, or let the space choose smaller plans"
        )
    largest = max(possible, key=lambda row: row.high_bytes)
    if largest.high_bytes < limits.low_bytes:
        raise ConfigError(
            f"search space {space.source}: the largest candidate, {largest.method} ({largest.settings}), "
            f"takes {largest.high_bytes} bytes, the byte range starts at {limits.low_bytes}; lower its start"
        )


def _stopped(folder: RunFolder, tell: Listener, what: str) -> None:
    text = f"stopped: {what}; the same command with the run folder {folder.path} goes on from here"
    _notice(folder, tell, text)


def _notice(folder: RunFolder, tell: Listener, text: str) -> None:
    folder.log("notice", text=text)
    tell(Notice(text))


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """SIGTERM, as batch systems send it, stops a search as Ctrl-C does. Main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
