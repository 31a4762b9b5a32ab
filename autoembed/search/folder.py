"""The run folder: what a search leaves on disk, and why a search can be killed at any moment.

    RUN/config.yaml           the study, resolved
        identity.json         what must not change when the search goes on
        env.json              versions, cores, threads
        study.journal         the sampler's history (Optuna); made again from trials/ where it is damaged
        log.jsonl, worker.log
        trials/NNNN/assignment.json    what the trial trains, written before it starts
                    record.json        its result, written in one step: with it the trial is finished
                    tables.safetensors network.safetensors history.json error.txt

A trial with an assignment and no record was interrupted; it runs again under its number.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoembed.config import ConfigError
from autoembed.files import writing
from autoembed.record import Role, TrialRecord, read_record, write_json, write_record

RETRAINING = "retraining"  # the event of the log with which a point's training anew begins


@dataclass(frozen=True)
class Assignment:
    """What a trial trains: a candidate and a seed, for at most `epochs` epochs where that is a number.

    `proposal` is what the sampler proposed, its parameters and distributions as JSON; None for a trial
    that no sampler proposed.
    """

    number: int
    candidate: str
    method: str
    parameters: dict[str, Any]
    seed: int
    role: Role
    proposal: dict[str, Any] | None = None
    epochs: int | None = None


class FailedIn(Exception):
    """A training failed, for its cause; `folder`, not that of its trial, is where the traceback belongs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


class RunFolder:
    """Paths, trials and log of one run folder. Only its owner, who holds `locked`, writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.identity = path / "identity.json"
        self.environment = path / "env.json"
        self.journal = path / "study.journal"
        self.log_file = path / "log.jsonl"
        self.worker_log = path / "worker.log"
        self.trials = path / "trials"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone; the system lets go when the process ends, however.

        Raises BlockingIOError where another search holds it.
        """
        with writing(self.path):
            self.trials.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock").open("a+b")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BlockingIOError(
                    f"another search is running in {self.path}; let it finish, stop it, or choose "
                    "another run folder"
                ) from None
            cut_torn_line(self.log_file)
            yield

    def refuse_foreign(self) -> None:
        """Raises ConfigError where the folder holds something else: prepared data, a model, other files."""
        own = (self.config, self.identity, self.trials, self.path / "walks")
        if self.path.is_dir() and any(self.path.iterdir()) and not any(path.exists() for path in own):
            raise ConfigError(f"{self.path} exists and is no run folder; choose another place or remove it")

    def trial(self, number: int) -> Path:
        return self.trials / f"{number:04d}"

    def numbers(self) -> list[int]:
        """Numbers of all trials, finished or not, ascending."""
        if not self.trials.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.trials.iterdir() if entry.name.isdigit())

    def assign(self, assignment: Assignment) -> None:
        """Promise to run a trial; from here on an interruption cannot lose it."""
        folder = self.trial(assignment.number)
        try:
            with writing(folder):
                folder.mkdir(exist_ok=True)
        except FileNotFoundError:  # made anew, it would lack its study, and its trials could not be used
            raise FileNotFoundError(
                f"{self.trials} was moved or removed while the search ran; where the run folder is now, the "
                "same command goes on with it"
            ) from None
        write_json(folder / "assignment.json", asdict(assignment))

    def assignment(self, number: int) -> Assignment | None:
        """What a trial was to train; None where it was interrupted before that was written.

        Raises ValueError naming the file where it is something else.
        """
        path = self.trial(number) / "assignment.json"
        try:
            return Assignment(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path} is not an assignment of this version ({error}); "
                f"remove the folder {path.parent} to have the sampler propose anew"
            ) from None

    def finish(self, record: TrialRecord) -> None:
        """Make a trial finished."""
        write_record(record, self.trial(record.number) / "record.json")

    def record(self, number: int) -> TrialRecord | None:
        """The record of a finished trial, None where it is not finished. Raises ValueError if unreadable."""
        path = self.trial(number) / "record.json"
        return read_record(path) if path.exists() else None

    def records(self) -> list[TrialRecord]:
        """All finished trials, by number."""
        found = (self.record(number) for number in self.numbers())
        return [record for record in found if record is not None]

    def log(self, event: str, **values: Any) -> None:
        """Append one line to log.jsonl, with the time in seconds since 1970."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values}, default=str)
        with writing(self.log_file), self.log_file.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def elapsed_seconds(self) -> float:
        """Wall time that earlier searches in this folder took, from the log: each up to its last line.

        Retraining a point is no search. Lines that cannot be read are passed over: only times hang on them.
        """
        total, opened, last = 0.0, None, 0.0
        lines = (
            self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
            if self.log_file.exists()
            else []
        )
        for line in lines:
            try:
                entry = json.loads(line)
                event, at = entry["event"], float(entry["time"])
            except (ValueError, KeyError, TypeError):
                continue
            if event in ("opened", RETRAINING):
                total += last - opened if opened is not None else 0.0
                opened = at if event == "opened" else None
            last = at
        return total + (last - opened if opened is not None else 0.0)


def read_records(run: Path) -> list[TrialRecord]:
    """All finished trials of a run folder, by number. Raises ValueError where it is not a run folder."""
    folder = RunFolder(run)
    if not folder.trials.is_dir():
        raise ValueError(f"{run} is not the folder of a search: it has no trials; see `autoembed search`")
    return folder.records()


def cut_torn_line(path: Path) -> int:
    """Cut a last line that a crash left incomplete; returns the bytes cut.

    Without this the next line appended would be glued to it and both would be lost.
    """
    if not path.exists():
        return 0
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    last_start = content.rfind(b"\n", 0, max(whole - 1, 0)) + 1
    try:
        json.loads(content[last_start:whole] or b"{}")
    except ValueError:
        whole = last_start
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    return len(content) - whole
