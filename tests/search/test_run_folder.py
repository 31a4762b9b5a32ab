import errno
import json
from pathlib import Path

import pytest
from search_study import make_study

from autoembed.config import ConfigError
from autoembed.record import TrialRecord
from autoembed.search.driver import run_study
from autoembed.search.folder import RETRAINING, Assignment, RunFolder, cut_torn_line, read_records
from autoembed.search.inputs import open_inputs, prepare_inputs
from autoembed.search.study import read_config


def record(number: int) -> TrialRecord:
    return TrialRecord(
        number, "uniform(bits=4)", "uniform", {"bits": 4}, 0, "search", "complete", {"total": 9}
    )


def test_a_record_reads_back_equal(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked():
        folder.assign(Assignment(0, "uniform(bits=4)", "uniform", {"bits": 4}, 0, "search"))
        folder.finish(record(0))
    assert read_records(tmp_path) == [record(0)]


def test_a_trial_without_a_record_is_not_finished(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assignment = Assignment(3, "fp16()", "fp16", {}, 1, "baseline", {"params": {"x": 1}})
    with folder.locked():
        folder.assign(assignment)
        (folder.trial(3) / ".record.json.abc").write_text('{"number": 3')
    assert folder.records() == []
    assert folder.assignment(3) == assignment


def test_an_unreadable_record_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked():
        folder.trial(0).mkdir()
        (folder.trial(0) / "record.json").write_text('{"colour": 1}')
    with pytest.raises(ValueError, match=r"record.json is not a trial record .*colour.*remove that file"):
        read_records(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"number": 0, "colour": 1}', "[]", "\0\0"])
def test_an_unreadable_assignment_is_named(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path)
    folder.trial(0).mkdir(parents=True)
    (folder.trial(0) / "assignment.json").write_text(content)
    with pytest.raises(ValueError, match=r"assignment.json is not an assignment .*remove the folder"):
        folder.assignment(0)


def test_two_searches_cannot_share_a_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(BlockingIOError, match="another search is running"):
        RunFolder(tmp_path).locked().__enter__()
    with RunFolder(tmp_path).locked():
        pass


def test_a_place_that_cannot_be_written_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match=rf"{tmp_path}: Read-only file system; make that place writable"):
        RunFolder(tmp_path).locked().__enter__()
    with pytest.raises(OSError, match=r"log\.jsonl: Read-only file system; make that place writable"):
        RunFolder(tmp_path).log("opened")


def test_a_disk_that_fills_up_while_data_is_prepared_is_named(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("autoembed.search.inputs.prepare", full)
    with pytest.raises(OSError, match=rf"{tmp_path}/prepared/clicks-.*: No space left on device; free space"):
        prepare_inputs(make_study(clicks), tmp_path / "run")


@pytest.mark.parametrize("tail", ["", '{"a": 1', '{"a": 1\n', "\0\0\0", '{"a": 1}'])
def test_a_torn_last_line_is_cut_and_the_rest_stays(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "lines"
    path.write_text('{"a": 0}\n{"b": 0}\n' + tail)
    assert cut_torn_line(path) == len(tail)
    assert path.read_text() == '{"a": 0}\n{"b": 0}\n'


def test_a_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text('{"a')
    assert cut_torn_line(path) == 3
    assert path.read_bytes() == b""


def test_elapsed_time_counts_sessions_and_not_the_time_between(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    times = [("opened", 100), ("started", 103), ("complete", 110), ("opened", 500), ("ended", 504)]
    folder.log_file.write_text("".join(json.dumps({"time": t, "event": e}) + "\n" for e, t in times))
    assert folder.elapsed_seconds() == 14


def test_elapsed_time_passes_over_retraining_and_lines_that_cannot_be_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    times = [("opened", 100), ("complete", 110), (RETRAINING, 500), ("complete", 530), ("opened", 900)]
    lines = [json.dumps({"time": t, "event": e}) for e, t in [*times, ("ended", 904)]]
    folder.log_file.write_text("\n".join([*lines[:2], "\0\0", '{"event": "opened"}', "[]", *lines[2:], ""]))
    assert folder.elapsed_seconds() == 14


def test_a_run_folder_that_was_moved_meanwhile_is_not_made_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.path.rename(tmp_path / "elsewhere")
        with pytest.raises(FileNotFoundError, match=f"{folder.trials} was moved or removed while"):
            folder.assign(Assignment(0, "fp16()", "fp16", {}, 0, "search"))
    assert not folder.path.exists()


def test_a_folder_that_holds_no_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it has no trials"):
        read_records(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_no_place_for_a_search(clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"model exists and is no run folder; choose another place"):
        run_study(make_study(clicks), tmp_path / "model", trainer="search_trainers:train")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["manifest.json"]


def test_data_that_is_gone_is_told_with_the_file_and_key_that_name_it(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "here" / "run"
    run_study(make_study(clicks, trials=1, seeds=1), run, trainer="search_trainers:train")
    moved = run.rename(tmp_path / "run")
    message = r"run/config\.yaml: key 'data': there is no prepared data at .*put it back, or search again"
    with pytest.raises(ConfigError, match=message):
        open_inputs(read_config(moved), moved)
