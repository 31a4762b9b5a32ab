"""The commands: what they print, what they refuse, and that a mistake is one message without a traceback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from command_line import run_command
from exported_model import config_for, exported
from search_study import make_study, write_clicks

from autoembed.data.config import LastSplit, Split
from autoembed.methods import METHODS
from autoembed.runtime import load


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search over a small log."""
    from autoembed.search.driver import run_study

    folder = tmp_path_factory.mktemp("cli")
    write_clicks(folder)
    run_study(make_study(folder, trials=2), folder / "run")
    return folder / "run"


def test_methods_lists_all_methods_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as some builds set it: programs read JSON, not colours
    assert run_command(monkeypatch, "methods", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(METHODS)
    assert all(
        set(row) >= {"name", "summary", "source", "levers", "parameters", "bags", "trains_small"}
        for row in rows
    )


@pytest.mark.parametrize("name", METHODS)
def test_methods_shows_every_knob_of_a_method(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "methods", name) == 0
    printed = capsys.readouterr().out
    assert all(knob in printed for knob, *_ in METHODS[name].knobs())


@pytest.mark.parametrize(
    ("name", "small", "ranks"),
    [("mpe", "no", "yes"), ("hashing", "yes", "no"), ("cached_low_precision", "yes", "with placement=rank")],
)
def test_methods_says_what_a_method_holds_and_needs(
    name: str, small: str, ranks: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "methods", name) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "fields of several ids: yes" in printed
    assert f"training, too, takes fewer bytes: {small}" in printed
    assert f"needs rows in order of frequency: {ranks}" in printed


def test_all_rows_of_a_raw_log_are_evaluated_where_its_split_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = exported().folder / "log.parquet"
    described = config_for(log).model_copy(update={"split": Split(last=LastSplit())})
    config = tmp_path / "log.yaml"
    config.write_text(yaml.safe_dump(described.model_dump(mode="json", exclude_none=True), sort_keys=False))
    assert run_command(monkeypatch, "evaluate", exported().artifact, config) == 2
    assert "--split all" in capsys.readouterr().err
    assert run_command(monkeypatch, "evaluate", exported().artifact, config, "--split", "all", "--json") == 0
    metrics = load(exported().artifact).evaluate_log(described)
    assert json.loads(capsys.readouterr().out)["auc"] == pytest.approx(metrics.auc, abs=1e-6)
    assert (
        run_command(monkeypatch, "evaluate", exported().artifact, exported().data.path, "--split", "all") == 2
    )
    assert "all" in capsys.readouterr().err


def test_a_lack_of_memory_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise MemoryError

    monkeypatch.setattr("autoembed.methods.describe", full)
    assert run_command(monkeypatch, "methods") == 2
    assert capsys.readouterr().err == "error: not enough memory\n"


def test_an_unknown_method_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "methods", "magic") == 2
    assert "uniform" in capsys.readouterr().err


def test_spaces_prints_a_preset_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from autoembed.space import preset_path

    assert run_command(monkeypatch, "spaces", "smoke") == 0
    assert capsys.readouterr().out.strip() == preset_path("smoke").read_text().strip()


def test_a_missing_study_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "search", tmp_path / "nothing.yaml") == 2
    message = capsys.readouterr().err
    assert "nothing.yaml" in message and "Traceback" not in message


def test_plan_shows_sizes_before_any_training(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "plan", run.parent / "study.yaml", "--run", run) == 0
    assert "frequency_cut" in capsys.readouterr().out


def test_search_resumes_a_finished_run_without_training_again(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.stat().st_mtime_ns for path in run.glob("trials/*/tables.safetensors"))
    command = ("search", run.parent / "study.yaml", "--run", run, "--set", "trials=2")
    assert run_command(monkeypatch, *command) == 0
    assert sorted(path.stat().st_mtime_ns for path in run.glob("trials/*/tables.safetensors")) == before
    assert "reference" in capsys.readouterr().out


def test_front_prints_json_and_writes_csv(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "front", run, "--json", "--csv", tmp_path / "points.csv") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["front"]
    assert len((tmp_path / "points.csv").read_text().splitlines()) > len(record["front"])


def test_plot_draws_png_and_svg(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_command(monkeypatch, "plot", run) == 0
    assert (run / "front.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (run / "front.svg").read_bytes()


@pytest.mark.parametrize(
    "wish", [("--knee",), ("--budget", "1/2"), ("--max-auc-drop", "1"), ("--trial", "0")], ids=" ".join
)
def test_export_writes_a_model_that_evaluate_and_verify_accept(
    wish: tuple[str, ...],
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "model"
    assert run_command(monkeypatch, "export", run, *wish, "-o", model) == 0
    manifest = json.loads((model / "manifest.json").read_text())
    assert (model / "tables.safetensors").stat().st_size == manifest["bytes"]["tables"]["total"]
    assert run_command(monkeypatch, "verify", model) == 0
    capsys.readouterr()
    prepared = next((run.parent / "prepared").iterdir())
    assert run_command(monkeypatch, "evaluate", model, prepared, "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["auc"] == pytest.approx(measured["reported"]["auc"], abs=1e-7)
    # the raw log, through the model's own vocabulary, gives the same
    assert run_command(monkeypatch, "evaluate", model, run.parent / "clicks.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["auc"] == pytest.approx(measured["auc"], abs=1e-7)


def test_verify_reads_every_byte_of_prepared_data(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared = tmp_path / "prepared"
    shutil.copytree(next((run.parent / "prepared").iterdir()), prepared)
    assert run_command(monkeypatch, "verify", prepared) == 0
    assert "900 rows" in capsys.readouterr().out
    column = sorted(prepared.rglob("*.npy"))[0]
    content = bytearray(column.read_bytes())
    content[-1] ^= 1
    column.write_bytes(bytes(content))
    assert run_command(monkeypatch, "verify", prepared) == 2
    assert f"the content of {column.relative_to(prepared)} was altered" in capsys.readouterr().err


def test_a_log_without_rows_has_no_metrics_and_one_of_a_single_class_no_auc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = pq.read_table(exported().folder / "log.parquet")
    of_one = log.filter(pc.equal(log["click"], 1))
    for name, rows in (("none", log.slice(0, 0)), ("one", of_one)):
        pq.write_table(rows, tmp_path / f"{name}.parquet")
        described = config_for(tmp_path / f"{name}.parquet").model_dump(mode="json", exclude_none=True)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    command = ("evaluate", exported().artifact)
    assert run_command(monkeypatch, *command, tmp_path / "none.yaml") == 2
    assert "there is no row to evaluate on" in capsys.readouterr().err
    assert run_command(monkeypatch, *command, tmp_path / "one.yaml") == 0
    assert "AUC undefined, all labels are alike, logloss 0." in capsys.readouterr().out
    assert run_command(monkeypatch, *command, tmp_path / "one.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["auc"] is None


def test_stats_of_a_log_says_to_prepare_it_first(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "stats", run.parent / "clicks.yaml") == 2
    assert "clicks.yaml is a file; prepare the log first: autoembed prepare" in capsys.readouterr().err


def test_a_trial_that_packing_changed_is_not_exported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    path = broken / "trials" / "0000" / "record.json"
    record = json.loads(path.read_text())
    assert record["packing_difference"] <= 1e-5
    path.write_text(json.dumps({**record, "packing_difference": 0.1}))
    config = broken / "config.yaml"
    config.write_text(config.read_text().replace("data: ../", f"data: {run.parent}/"))
    assert run_command(monkeypatch, "export", broken, "--trial", "0", "-o", tmp_path / "m") == 2
    assert "packing trial 0" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_trial_whose_rows_were_altered_is_not_exported_with_its_old_metrics(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    config = broken / "config.yaml"
    config.write_text(config.read_text().replace("data: ../", f"data: {run.parent}/"))
    tables = broken / "trials" / "0000" / "tables.safetensors"
    content = bytearray(tables.read_bytes())
    content[-100] ^= 0x55
    tables.write_bytes(content)
    assert run_command(monkeypatch, "export", broken, "--trial", "0", "-o", tmp_path / "m") == 2
    message = capsys.readouterr().err
    assert f"{tables}: altered" in message and f"remove {tables.with_name('record.json')}" in message
    assert not (tmp_path / "m").exists()
    # a record of an earlier version holds no checksums: its files are taken as they are
    path = tables.with_name("record.json")
    record = json.loads(path.read_text())
    del record["checksums"]
    path.write_text(json.dumps(record))
    assert run_command(monkeypatch, "export", broken, "--trial", "0", "-o", tmp_path / "m") == 0


def test_export_wants_exactly_one_wish(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "export", run, "--knee", "--trial", "0", "-o", tmp_path / "m") == 2
    assert "exactly one" in capsys.readouterr().err


@pytest.mark.parametrize("trainings", ["inf", "nan", "-1", "1e306"])
def test_export_retrains_for_a_number_of_trainings(
    trainings: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wish = ("--trial", "0", "--retrain", trainings, "-o", tmp_path / "m")
    assert run_command(monkeypatch, "export", run, *wish) == 2
    message = capsys.readouterr().err
    assert "error: retraining takes a number of trainings above 0 and up to 1000" in message
    assert not (tmp_path / "m").exists()


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """What was written, without the ends of lines that are too long."""
    streams = capsys.readouterr()
    return (streams.out + streams.err).replace("\n", "")


def test_brackets_and_names_of_emoji_in_paths_and_data_are_printed_as_they_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / "b[" / "x]r[bold]:key:"  # "[/x]" closes a style that was never opened
    odd.mkdir(parents=True)
    folder = odd / "run"
    shutil.copytree(run, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("data: ../", f"data: {run.parent}/"))
    study = run.parent / "study.yaml"
    assert run_command(monkeypatch, "search", study, "--run", folder, "--set", "trials=2") == 0
    assert f"autoembed export '{folder}' --knee".replace(" ", "") in printed(capsys).replace(" ", "")
    assert run_command(monkeypatch, "plot", folder, "--out", folder / "front.svg") == 0
    assert f"drew {folder}/front.svg".replace(" ", "") in printed(capsys).replace(" ", "")
    assert run_command(monkeypatch, "export", folder, "--knee", "-o", odd / "model") == 0
    assert f"wrote {odd}/model" in printed(capsys)
    assert run_command(monkeypatch, "verify", odd / "model") == 0
    assert f"{odd}/model: intact".replace(" ", "") in printed(capsys).replace(" ", "")
    assert run_command(monkeypatch, "verify", odd / "nothing[/x]") == 2
    assert f"{odd}/nothing[/x]: no exported model here" in printed(capsys)

    log = ["click,a[/b]:key:", *(f"{row % 2},{row % 5}" for row in range(80)), "maybe[/b] [foo],1"]
    (odd / "log.csv").write_text("\n".join(log) + "\n")
    split = {"random": {"valid": 0.2, "test": 0.2, "seed": 1}}
    described = {"path": "log.csv", "label": "click", "categorical": ["a[/b]:key:"], "split": split}
    described["max_bad_share"] = 0.5
    (odd / "log.yaml").write_text(yaml.safe_dump(described))
    assert run_command(monkeypatch, "prepare", odd / "log.yaml", "-o", odd / "data") == 0
    told = printed(capsys).replace(" ", "")
    assert f"prepared {odd}/data: ".replace(" ", "") in told and "maybe[/b][foo]" in told
    assert run_command(monkeypatch, "stats", odd / "data", "--plot", odd / "tail.png") == 0
    told = printed(capsys)
    assert "a[/b]:key: " in told and f"drew {odd}/tail.png".replace(" ", "") in told.replace(" ", "")


def test_help_shows_what_stands_in_brackets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "search", "--help") == 0
    assert "runs/NAME" in capsys.readouterr().out


def test_a_budget_that_nothing_fits_names_the_smallest_candidate(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "export", run, "--budget", "100B", "-o", tmp_path / "m") == 2
    assert "smallest" in capsys.readouterr().err


def test_a_truncated_model_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert run_command(monkeypatch, "export", run, "--knee", "-o", model) == 0
    tables = model / "tables.safetensors"
    tables.write_bytes(tables.read_bytes()[:-1])
    assert run_command(monkeypatch, "verify", model) == 2
    assert "tables.safetensors" in capsys.readouterr().err


def test_joint_is_listed_among_the_spaces_and_has_no_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(monkeypatch, "spaces") == 0
    assert "joint" in capsys.readouterr().out.split()
    assert run_command(monkeypatch, "spaces", "joint") == 0
    assert "has no file" in capsys.readouterr().out


def test_a_wrong_key_of_set_is_not_blamed_on_the_file(run: Path, tmp_path: Path) -> None:
    from autoembed.config import ConfigError
    from autoembed.search.study import load_study

    with pytest.raises(ConfigError, match=r"study.yaml with --set trails=3: unknown key 'trails'"):
        load_study(run.parent / "study.yaml", ["trails=3"])


def test_a_terminal_of_ascii_gets_question_marks(run: Path) -> None:
    plain = {"PYTHONIOENCODING": "ascii", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", "from autoembed.cli import main; main()", "front", str(run)]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout
