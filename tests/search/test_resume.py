import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from search_study import make_study

import autoembed
from autoembed.config import ConfigError
from autoembed.data.prepared import open_prepared
from autoembed.record import TrialRecord
from autoembed.search.driver import run_study
from autoembed.search.events import Event, Notice, StudyStarted, TrialEnded
from autoembed.search.folder import RunFolder, read_records

TESTS = Path(__file__).parents[1]
ROOT = Path(autoembed.__file__).parents[1]
SLOW, FAKE = "search_trainers:slow_train", "search_trainers:train"


def start(clicks: Path, run: Path, trainer: str = SLOW) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "kernels", TESTS)))
    command = [sys.executable, str(TESTS / "search_drive.py"), str(clicks / "study.yaml"), str(run), trainer]
    return subprocess.Popen(command, start_new_session=True, env={**os.environ, "PYTHONPATH": path})


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_alive(state: Path) -> bool:
    """Whether /proc/PID/stat tells of a process that has not ended; without /proc it is taken as ended."""
    try:
        return state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def records(run: Path) -> dict[int, TrialRecord]:
    return {record.number: record for record in RunFolder(run).records()}


def test_a_search_killed_at_any_moment_ends_as_if_never_interrupted(clicks: Path, tmp_path: Path) -> None:
    """Trials, parameters, metrics and costs are the same; a finished trial is never touched again."""
    config = make_study(clicks, trials=8)
    expected = run_study(config, tmp_path / "calm", trainer=SLOW)
    run, moments = tmp_path / "killed", random.Random(11)
    for share in (0.25, 0.6):
        process = start(clicks, run)
        wait_for(lambda share=share: len(records(run)) >= share * len(expected))  # type: ignore[misc]
        time.sleep(moments.random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        finished = {n: (run / "trials" / f"{n:04d}" / "record.json").stat() for n in records(run)}
        assert 0 < len(finished) < len(expected)
        if share > 0.5:
            with (run / "study.journal").open("ab") as journal:
                journal.write(b'{"op_code": 6, "wor')
    assert run_study(config, run, trainer=SLOW) == expected
    for number, before in finished.items():
        after = (run / "trials" / f"{number:04d}" / "record.json").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_kill_ends_the_workers_too_and_the_search_goes_on(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = make_study(clicks, trials=8, workers=2)
    process = start(clicks, run)
    wait_for(lambda: len(records(run)) >= 4)
    workers = [Path("/proc") / pid / "stat" for pid in (run / "workers.pid").read_text().split()]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(is_alive(state) for state in workers), 5.0)
    before = records(run)
    # a kill while a trial is assigned leaves a folder without an assignment, which nothing was begun in
    assigned = {number for number in RunFolder(run).numbers() if RunFolder(run).assignment(number)}
    unfinished = assigned - set(before)
    events: list[Event] = []
    after = {record.number: record for record in run_study(config, run, progress=events.append, trainer=SLOW)}
    assert {number: replace(after[number], fte=before[number].fte) for number in before} == before
    assert unfinished <= set(after)
    assert sorted(after) == list(range(len(after)))
    pairs = [(record.candidate, record.seed) for record in after.values()]
    assert len(set(pairs)) == len(pairs)
    assert sum(record.role == "search" and record.state == "complete" for record in after.values()) == 8
    (begun,) = [event for event in events if isinstance(event, StudyStarted)]
    assert (begun.already, begun.again) == (len(before), len(unfinished))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_at_once_and_says_how_to_go_on(
    clicks: Path, tmp_path: Path, number: signal.Signals, request: pytest.FixtureRequest
) -> None:
    # a shell starts background jobs with SIGINT ignored; a terminal's Ctrl-C is what is tested
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, earlier))
    config, events = make_study(clicks, workers=2), list[Event]()

    def interrupt(event: Event) -> None:
        events.append(event)
        if isinstance(event, TrialEnded) and event.record.number == 2:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run_study(config, tmp_path, progress=interrupt, trainer=SLOW)
    finished = read_records(tmp_path)
    text = events[-1].text if isinstance(events[-1], Notice) else ""
    assert f"{len(finished)} trials are finished and kept" in text
    assert "goes on from here" in text
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    after = run_study(config, tmp_path, trainer=SLOW)
    kept = {record.number: record for record in after}
    for record in finished:
        # what ended before the reference did gets its cost later; nothing else may change
        assert replace(kept[record.number], fte=record.fte) == record


def test_a_trial_whose_record_is_removed_is_trained_again(clicks: Path, tmp_path: Path) -> None:
    config = make_study(clicks)
    before = {record.number: record for record in run_study(config, tmp_path, trainer=SLOW)}
    sampled = next(number for number, record in before.items() if record.role == "search")
    for number in (0, sampled):  # the reference, and one that the sampler proposed
        (RunFolder(tmp_path).trial(number) / "record.json").unlink()
        run_study(config, tmp_path, trainer=SLOW)
        found = records(tmp_path)
        assert {n: r.candidate for n, r in found.items()} == {n: r.candidate for n, r in before.items()}


def test_a_run_goes_on_with_its_data_when_its_log_has_grown_or_is_gone(clicks: Path, tmp_path: Path) -> None:
    shutil.copytree(clicks, tmp_path / "here")
    log = tmp_path / "here" / "clicks.csv"
    config = make_study(tmp_path / "here", trials=1)
    first = run_study(config, tmp_path / "runs" / "first", trainer=FAKE)
    with log.open("a") as file:
        file.write(log.read_text().splitlines()[-1] + "\n")
    more = config.model_copy(update={"trials": 2})
    assert run_study(more, tmp_path / "runs" / "first", trainer=FAKE)[: len(first)] == first
    run_study(config, tmp_path / "runs" / "second", trainer=FAKE)  # reads the longer log beside the other
    rows = [
        sum(data.rows(split) for split in ("train", "valid", "test"))
        for data in map(open_prepared, sorted((tmp_path / "runs" / "prepared").iterdir()))
    ]
    assert sorted(rows) == [900, 901]
    log.unlink()
    for run in ("first", "second"):
        run_study(more.model_copy(update={"trials": 3}), tmp_path / "runs" / run, trainer=FAKE)
    with pytest.raises(ConfigError, match="no file matches"):
        run_study(config, tmp_path / "runs" / "third", trainer=FAKE)


def test_a_second_search_in_the_same_folder_is_refused(clicks: Path, tmp_path: Path) -> None:
    config = make_study(clicks)
    with RunFolder(tmp_path).locked(), pytest.raises(BlockingIOError, match="another search is running"):
        run_study(config, tmp_path, trainer=SLOW)
