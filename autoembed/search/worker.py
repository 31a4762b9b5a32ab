"""A worker process: reads trials to train from its standard input, tells results on its standard output.

    python -m autoembed.search.worker RUN MODULE:FUNCTION

One JSON object a line each way, no pickle. In: {"number": n}. Out: {"ready": true}, then per trial any
{"number": n, "progress": {...}} and one {"number": n, "outcome": {...}} or
{"number": n, "failed": reason, "see": file with the traceback}.
The function is called as f(run, assignment, progress) -> dict; it writes into the trial's folder.
When the input ends, because the search is done or was killed, the process ends at once.
"""

import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoembed.files import write_file
from autoembed.search.folder import Assignment, FailedIn, RunFolder

Trainer = Callable[[Path, Assignment, Callable[[dict[str, Any]], None]], dict[str, Any]]


def main() -> None:
    run, target = RunFolder(Path(sys.argv[1])), sys.argv[2]
    # libraries may print: only messages go to the pipe, everything else to the worker log
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(**message: Any) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    jobs: queue.Queue[int] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    module, function = target.split(":")
    trainer: Trainer = getattr(importlib.import_module(module), function)
    tell(ready=True)
    while True:
        number = jobs.get()
        assignment = run.assignment(number)
        assert assignment is not None, "a trial is assigned before it is sent"
        try:
            outcome = trainer(run.path, assignment, lambda progress: tell(number=number, progress=progress))  # noqa: B023
        except Exception as error:
            # whatever a method does wrong costs its own trial, never the search
            folder = error.folder if isinstance(error, FailedIn) else run.trial(number)
            cause = error.__cause__ if isinstance(error, FailedIn) else error
            see = _keep_traceback(folder / "error.txt")
            tell(number=number, failed=f"{type(cause).__name__}: {cause}", see=see)
        else:
            tell(number=number, outcome=outcome)


def _keep_traceback(path: Path) -> str:
    """Write the traceback of the exception at hand; the file's name, "" where the disk is full."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, [traceback.format_exc().encode()])
    except OSError:
        with suppress(OSError):  # the worker log may be as full
            traceback.print_exc()
        return ""
    return str(path)


def _listen(jobs: "queue.Queue[int]") -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line)["number"])
    os._exit(0)  # nobody is left to train for; a finished result was told before


if __name__ == "__main__":
    main()
