"""What a person sees while a search runs: a live view on a terminal, plain lines anywhere else."""

import time
from dataclasses import replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoembed.budget import format_bytes
from autoembed.record import TrialRecord
from autoembed.search.events import (
    DataProgress,
    Event,
    Notice,
    Standing,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialProgress,
    TrialStarted,
)
from autoembed.search.study import JOINT

QUIET_SECONDS = 30.0  # without a terminal, say how a training goes when nothing else was said for so long


class LiveView:
    """Pass it to `run_study` as `progress`, inside `with`: it owns the terminal until then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._data = StageBar(console)
        self._study: StudyStarted | None = None
        self._standing: Standing | None = None
        self._told_at = 0.0
        self._said_at = 0.0
        self._trials: dict[int, tuple[TrialStarted, TrialProgress | None, float]] = {}

    def __enter__(self) -> "LiveView":
        return self

    def __exit__(self, *error: object) -> None:
        self._data.__exit__()
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, DataProgress):
            self._data(event)
            return
        if isinstance(event, StudyStarted):
            self._begin(event)
        elif isinstance(event, TrialStarted):
            self._trials[event.number] = event, None, time.monotonic()
            if self._live is None:
                self._say(f"trial {event.number} {event.role} {event.candidate} seed {event.seed}: started")
        elif isinstance(event, TrialProgress):
            begun, _, since = self._trials[event.number]
            self._trials[event.number] = begun, event, since
            if self._live is None and time.monotonic() - self._said_at > QUIET_SECONDS:
                self._say(self._progress_line(event))
        elif isinstance(event, TrialEnded):
            self._trials.pop(event.record.number, None)
            self._stand(event.standing)
            tail = "" if self._live is not None else f"  |  {standing_line(event.standing)}"
            self._say(self._ended_line(event.record) + tail)
        elif isinstance(event, Notice):
            self._say(event.text)
        else:
            self._end(event)

    def _begin(self, event: StudyStarted) -> None:
        self._data.__exit__()
        self._study = event
        self._stand(event.standing)
        budgets = ", ".join(format_bytes(budget) for budget in event.budgets_bytes)
        self._say(
            f"{event.run}: budgets {budgets}; full precision takes {format_bytes(event.full_bytes)}; "
            f"{event.standing.planned} trainings planned, {event.workers} at a time"
        )
        if event.already or event.again:
            self._say(f"going on: {event.already} trials are finished, {event.again} were interrupted")
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, refresh_per_second=4, transient=True, get_renderable=self._picture
            )
            self._live.start()

    def _end(self, event: StudyEnded) -> None:
        self._stand(event.standing)
        for line in best_lines(event.standing, self._objective):
            self._say(line)
        at = event.standing
        how = "done" if at.finished >= at.planned else "ended early"
        self._say(f"{how}: {standing_line(replace(at, eta_seconds=None))}")

    @property
    def _objective(self) -> str:
        return self._study.objective if self._study else ""

    def _stand(self, standing: Standing) -> None:
        self._standing, self._told_at = standing, time.monotonic()

    def _say(self, text: str) -> None:
        self._said_at = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _progress_line(self, at: TrialProgress) -> str:
        value = at.best_auc if self._objective == "auc" else at.best_logloss
        best = "" if value is None else f", best valid {self._objective} {value:.5f}"
        where = f"step {at.step % max(at.steps_per_epoch, 1)} of {at.steps_per_epoch}"
        return f"trial {at.number}: {at.stage} epoch {at.epoch} of {at.epochs}, {where}{best}"

    def _ended_line(self, record: TrialRecord) -> str:
        head = f"trial {record.number} {record.role} {record.candidate} seed {record.seed}: "
        if record.state != "complete":
            return f"{head}{record.state}: {record.reason}"
        value = record.valid_auc if self._objective == "auc" else record.valid_logloss
        cost = "" if record.fte is None else f", {record.fte:.2f} full trainings"
        return (
            f"{head}valid {self._objective} {value:.5f}, {format_bytes(record.total_bytes)}, "
            f"{format_seconds(record.seconds)}{cost}"
        )

    def _picture(self) -> RenderableType:
        standing = self._standing
        if standing is None:
            return Text("")
        running = Table.grid(padding=(0, 2))
        for begun, at, since in list(self._trials.values()):  # drawn by rich's own thread
            seconds = format_seconds(time.monotonic() - since)
            name = Text(begun.candidate, overflow="ellipsis", no_wrap=True)
            stage = self._stage_cells(at, begun.method)
            running.add_row(Text(f"{begun.number}"), Text(begun.role), name, *stage, Text(seconds))
        best = Table(box=None, padding=(0, 2), title_justify="left")
        for header in ("budget", f"best valid {self._objective}", "bytes", "candidate"):
            best.add_column(header, no_wrap=True, overflow="ellipsis")
        for row in standing.best:
            value = "-" if row.value is None else f"{row.value:.5f}"
            size = "-" if row.bytes is None else format_bytes(row.bytes)
            best.add_row(format_bytes(row.budget_bytes), value, size, Text(row.candidate or "-"))
        passed = time.monotonic() - self._told_at
        return Group(running, Text(standing_line(standing, passed), style="bold"), best)

    def _stage_cells(self, at: TrialProgress | None, method: str) -> tuple[RenderableType, ...]:
        if at is None:  # a point of a walk tells nothing until it is there
            return Text("planning, fine-tuning" if method == JOINT else "starting"), Text(""), Text("")
        done = (at.step / max(at.steps_per_epoch, 1)) % 1 if at.step else 0.0
        value = at.best_auc if self._objective == "auc" else at.best_logloss
        best = "" if value is None else f"best {self._objective} {value:.5f}"
        return (
            Text(f"{at.stage} epoch {at.epoch}/{at.epochs}"),
            ProgressBar(total=1.0, completed=done, width=12),
            Text(best),
        )


class StageBar:
    """A bar per stage of preparing data: pass it as `progress`, inside `with`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "StageBar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, at: Any) -> None:
        """at: has `stage`, `done` from 0 to 1, and `rows`."""
        if self._bars is None:
            columns = (
                TextColumn("data: {task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[rows]:,} rows", markup=False),
            )
            self._bars = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
            self._bars.start()
        if at.stage not in self._tasks:
            self._tasks[at.stage] = self._bars.add_task(at.stage, total=1.0, rows=at.rows)
            if not self._console.is_terminal:
                self._console.print(f"preparing data: {at.stage}", markup=False, highlight=False)
        self._bars.update(self._tasks[at.stage], completed=at.done, rows=at.rows)


def standing_line(standing: Standing, passed_seconds: float = 0.0) -> str:
    """ "4 of 11 trainings, 2.86 full trainings spent, about 8 s left"."""
    parts = [f"{standing.finished} of {standing.planned} trainings"]
    if standing.spent_fte is not None:
        parts.append(f"{standing.spent_fte:.2f} full trainings spent")
    if standing.eta_seconds is not None and standing.finished < standing.planned:
        parts.append(f"about {format_seconds(max(standing.eta_seconds - passed_seconds, 0.0))} left")
    return ", ".join(parts)


def best_lines(standing: Standing, objective: str) -> list[str]:
    """The best candidate within each budget, one a line."""
    return [
        f"within {format_bytes(best.budget_bytes)}: nothing fits"
        if best.value is None
        else f"within {format_bytes(best.budget_bytes)}: {best.candidate}, {format_bytes(best.bytes or 0)}, "
        f"valid {objective} {best.value:.5f}"
        for best in standing.best
    ]


def format_seconds(seconds: float) -> str:
    """For people: "8 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
