"""Worker processes as the search sees them: send a trial, wait for the next message.

A worker is a process of its own with one thread of arithmetic: on a busy machine spinning thread pools
cost far more than they bring. Each has its own pipes, so one that is killed takes nothing with it.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# One thread per worker, and none that spins. glibc gives big activations back to the system after each step
# and faults them in again: keeping them took 8-20 % less CPU time in four turns of training full precision
# on frappe (dnn 512-256, batch 2048, Xeon 2.5 GHz). A user's own values win.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "16777216",
}


@dataclass(frozen=True)
class Report:
    """A training reports. `values` is what the trainer told."""

    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Done:
    number: int
    outcome: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """The training raised, or its process died. `see`: the file that tells more, "" where there is none."""

    number: int
    reason: str
    see: str


class WorkersCannotStart(RuntimeError):
    """A worker died before it could take a trial; the message shows the end of its log."""


class Pool:
    """At most `size` workers, started when first needed; `log` takes what they print.

    Use it as a context manager: leaving it ends all workers, at once.
    """

    def __init__(self, run: Path, trainer: str, size: int, log: Path) -> None:
        self._command = [sys.executable, "-m", "autoembed.search.worker", str(run), trainer]
        self._size = size
        self._log = log
        self._messages: queue.Queue[tuple[_Worker, dict[str, Any] | None]] = queue.Queue()
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.kill()

    @property
    def free(self) -> int:
        """Trials that could start now."""
        return self._size - sum(worker.number is not None for worker in self._workers)

    def submit(self, number: int) -> None:
        """Start a trial whose assignment is written. Needs `free` > 0."""
        worker = next((worker for worker in self._workers if worker.number is None), None)
        if worker is None:
            worker = _Worker(self._command, self._log, self._messages)
            self._workers.append(worker)
        worker.send(number)

    def wait(self, seconds: float) -> Report | Done | Failed | None:
        """The next message, or None after `seconds`. Raises WorkersCannotStart."""
        try:
            worker, message = self._messages.get(timeout=seconds)
        except queue.Empty:
            return None
        if message is None:
            return self._bury(worker)
        if "ready" in message:
            worker.ready = True
            return None
        number = message["number"]
        if "progress" in message:
            return Report(number, message["progress"])
        worker.number = None
        if "failed" in message:
            return Failed(number, message["failed"], message["see"])
        return Done(number, message["outcome"])

    def _bury(self, worker: "_Worker") -> Failed | None:
        self._workers.remove(worker)
        code = worker.kill()
        if not worker.ready:
            tail = self._log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()
            raise WorkersCannotStart(f"a worker process ended with code {code} before any trial:\n{tail}")
        if worker.number is None:
            return None
        cause = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = "; signal 9 often means that memory ran out" if code == -9 else ""
        return Failed(worker.number, f"the worker process {cause}{hint}", str(self._log))


class _Worker:
    """One process; a thread of ours forwards its messages, then None when it has ended."""

    def __init__(self, command: list[str], log: Path, messages: "queue.Queue[Any]") -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**ENVIRONMENT, **os.environ, "PYTHONPATH": path},
                # away from the terminal's Ctrl-C, which is for the search to answer
                start_new_session=True,
            )
        self.number: int | None = None
        self.ready = False
        threading.Thread(target=self._forward, args=(messages,), daemon=True).start()

    def send(self, number: int) -> None:
        self.number = number
        assert self._process.stdin is not None
        with _closed_pipe_is_a_death():
            self._process.stdin.write(json.dumps({"number": number}).encode() + b"\n")
            self._process.stdin.flush()

    def kill(self) -> int:
        """End the process and return its exit code: what it had already, or minus the signal."""
        if self._process.poll() is None:
            self._process.kill()
        code = self._process.wait()
        with _closed_pipe_is_a_death():
            assert self._process.stdin is not None
            self._process.stdin.close()
        return code

    def _forward(self, messages: "queue.Queue[Any]") -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                messages.put((self, json.loads(line)))
        messages.put((self, None))


@contextmanager
def _closed_pipe_is_a_death() -> Iterator[None]:
    """A worker that died between two messages is noticed by its forwarder; writing to it is no error."""
    try:
        yield
    except (BrokenPipeError, OSError):
        return
