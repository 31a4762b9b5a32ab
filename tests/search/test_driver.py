import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from search_study import SPACE, make_study, write_clicks

from autoembed.config import ConfigError
from autoembed.methods import make_method
from autoembed.record import TrialRecord
from autoembed.search.driver import run_study
from autoembed.search.events import Event, Notice, StudyEnded, StudyStarted, TrialEnded, TrialProgress
from autoembed.search.folder import RunFolder, read_records
from autoembed.search.inputs import prepare_inputs
from autoembed.search.limits import limits_of
from autoembed.search.pool import WorkersCannotStart
from autoembed.search.study import StudyError, read_config

FAKE = "search_trainers:train"


def role(records: list[TrialRecord], name: str, state: str = "complete") -> list[TrialRecord]:
    return [record for record in records if record.role == name and record.state == state]


def trained(run: Path) -> list[int]:
    return sorted(int(line) for line in (run / "trained.log").read_text().split())


def told(run: Path) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(run / "study.journal"))
    study = optuna.load_study(study_name="autoembed", storage=optuna.storages.JournalStorage(backend))
    return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def test_a_search_trains_reference_baselines_proposals_and_repeats(clicks: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = make_study(clicks, budgets=["1/1.5", "1/8"], seeds=3)
    records = run_study(config, tmp_path / "run", progress=events.append, trainer=FAKE)
    assert records == read_records(tmp_path / "run")
    assert [record.number for record in records] == list(range(len(records)))
    assert records[0].candidate == "full_precision()"
    assert [r.candidate for r in role(records, "baseline")] == ["fp16()", "uniform(bits=8)"]
    assert len(role(records, "search")) == 6
    seeds = {r.seed for r in records if r.candidate == "full_precision()"}
    assert seeds == {0, 1, 2}
    pairs = [(r.candidate, r.seed) for r in records]
    assert len(set(pairs)) == len(pairs)
    assert trained(tmp_path / "run") == [r.number for r in records if r.state == "complete"]
    ended = events[-1]
    starts = [event for event in events if isinstance(event, StudyStarted)]
    assert len(starts) == 1 and starts[0].workers == 1
    assert isinstance(ended, StudyEnded)
    assert ended.standing.finished == ended.standing.planned == len(trained(tmp_path / "run"))
    assert ended.standing.eta_seconds == 0
    assert any(isinstance(event, TrialProgress) for event in events)


def test_cost_is_counted_in_reference_trainings(clicks: Path, tmp_path: Path) -> None:
    records = run_study(make_study(clicks, workers=2), tmp_path / "run", trainer=FAKE)
    for record in records:
        expected = 1.0 if record.method == "full_precision" else 0.5
        assert record.fte == (expected if record.state == "complete" else None)


def test_front_points_get_all_seeds_and_the_others_one(clicks: Path, tmp_path: Path) -> None:
    from autoembed.front import make_points, pareto

    records = run_study(make_study(clicks, seeds=3), tmp_path / "run", trainer=FAKE)
    points = make_points(records)
    front = pareto(points, "auc")
    assert front
    assert all(len(point.repeats) == 3 for point in front)
    assert any(len(point.repeats) == 1 for point in points)


def test_a_candidate_beyond_the_budget_is_never_trained(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    records = run_study(make_study(clicks, budgets=["1/2.5"]), run, trainer=FAKE)
    rejected = [record for record in records if record.state == "rejected"]
    assert "fp16()" in {record.candidate for record in rejected}
    assert all("the largest budget is" in record.reason for record in rejected)
    assert not set(trained(run)) & {record.number for record in rejected}
    assert len(role(records, "search")) == 6


def test_rejections_teach_the_sampler_by_their_bytes(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    records = run_study(make_study(clicks, budgets=["1/6"], sampler="random"), run, trainer=FAKE)
    rejected = [record for record in records if record.state == "rejected" and record.role == "search"]
    constraints = {trial.user_attrs["number"]: trial.constraints for trial in told(run)}
    assert rejected
    for record in rejected:
        needed = int(re.findall(r"needs at least (\d+) bytes", record.reason)[0])
        limit = int(re.findall(r"budget is (\d+)", record.reason)[0])
        assert constraints[record.number]["bytes"] == needed - limit > 0


def test_a_learned_size_beyond_the_budget_violates_the_constraint(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = make_study(clicks, budgets=[4000])
    records = run_study(config, run, trainer="search_trainers:grow_beyond")
    assert {r.total_bytes for r in role(records, "search")} == {1_000_000}
    sampled = {r.number for r in role(records, "search")}
    for trial in told(run):
        if trial.user_attrs["number"] in sampled:
            assert trial.constraints["bytes"] == 1_000_000 - 4000


def test_a_space_beyond_every_budget_stops_before_training(clicks: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"the smallest candidate, .*needs \d+ bytes .*raise a budget"):
        run_study(make_study(clicks, budgets=[100]), tmp_path / "run", trainer=FAKE)
    assert not (tmp_path / "run" / "trained.log").exists()


def test_a_failing_method_is_recorded_and_the_search_goes_on(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = make_study(clicks, trials=12, workers=2)
    records = run_study(config, run, trainer="search_trainers:fail_at_4_bits")
    failed = [record for record in records if record.state == "failed"]
    assert failed and all(record.parameters["bits"] == 4 for record in failed)
    assert all(record.reason == "ArithmeticError: the loss is nan" for record in failed)
    assert "Traceback" in (RunFolder(run).trial(failed[0].number) / "error.txt").read_text()
    assert len(role(records, "search")) + len(failed) == 12
    constraints = {trial.user_attrs["number"]: trial.constraints for trial in told(run)}
    assert all(constraints[record.number]["failed"] == 1 for record in failed)


def test_a_killed_worker_costs_one_trial(clicks: Path, tmp_path: Path) -> None:
    config = make_study(clicks, trials=8, workers=2)
    records = run_study(config, tmp_path / "run", trainer="search_trainers:die_at_4_bits")
    failed = [record for record in records if record.state == "failed"]
    assert failed and all("killed by signal 9" in record.reason for record in failed)
    assert len(role(records, "search")) + len(failed) == 8


def test_a_failing_reference_stops_the_search(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(StudyError, match=r"full-precision reference failed.*ArithmeticError"):
        run_study(make_study(clicks), run, trainer="search_trainers:fail_at_full_precision")
    records = run_study(make_study(clicks), run, trainer=FAKE)
    assert len(role(records, "reference")) == 1


def test_workers_that_cannot_start_end_the_search(clicks: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkersCannotStart, match="No module named 'nowhere'"):
        run_study(make_study(clicks), tmp_path / "run", trainer="nowhere:train")


def test_a_finished_search_has_nothing_to_do(clicks: Path, tmp_path: Path) -> None:
    first = run_study(make_study(clicks), tmp_path / "run", trainer=FAKE)
    assert run_study(make_study(clicks), tmp_path / "run", trainer="nowhere:train") == first


def test_a_search_goes_on_without_the_raw_logs(tmp_path: Path) -> None:
    write_clicks(tmp_path)
    run = tmp_path / "runs" / "run"
    first = run_study(make_study(tmp_path), run, trainer=FAKE)
    (tmp_path / "clicks.csv").unlink()
    (tmp_path / "clicks.yaml").unlink()
    records = run_study(read_config(run).model_copy(update={"trials": 7}), run, trainer=FAKE)
    assert records[: len(first)] == first and len(records) > len(first)


def test_a_removed_trial_runs_again(clicks: Path, tmp_path: Path) -> None:
    first = run_study(make_study(clicks, seeds=1), tmp_path, trainer=FAKE)
    shutil.rmtree(RunFolder(tmp_path).trial(2))
    records = run_study(make_study(clicks, seeds=1), tmp_path, trainer=FAKE)
    assert [replace(r, number=0) for r in records if r.number > first[-1].number] == [
        replace(first[2], number=0)
    ]


def test_raising_trials_and_seeds_goes_on(clicks: Path, tmp_path: Path) -> None:
    first = run_study(make_study(clicks), tmp_path / "run", trainer=FAKE)
    config = make_study(clicks, trials=9, seeds=3, workers=2, time_limit="1h")
    records = run_study(config, tmp_path / "run", trainer=FAKE)
    assert records[: len(first)] == first
    assert len(role(records, "search")) == 9
    assert {r.seed for r in records if r.role == "repeat"} == {1, 2}


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"objective": "logloss"}, "objective: 'auc' -> 'logloss'"),
        ({"model": {"name": "dnn", "dim": 8, "hidden": [8]}}, "model.dim: 16 -> 8"),
        ({"training": {"epochs": 3}}, "training.epochs: 2 -> 3"),
        ({"budgets": ["1/2", "1/4"]}, "budgets"),
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"search_space": {"methods": [*SPACE["methods"][:2]]}}, r"search_space \(its content\)"),
    ],
)
def test_another_study_is_refused_by_the_names_of_what_changed(
    clicks: Path, tmp_path: Path, keys: dict[str, object], named: str
) -> None:
    run = tmp_path / "run"
    run_study(make_study(clicks, trials=0, seeds=1), run, trainer=FAKE)
    with pytest.raises(ConfigError, match=named):
        run_study(make_study(clicks, **keys), run, trainer=FAKE)
    kept = read_config(run)
    assert (kept.objective, kept.trials, kept.seed, kept.model.dim) == ("auc", 0, 0, 16)


def test_a_damaged_identity_is_named(clicks: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path).identity.write_text('{"seed": ')
    with pytest.raises(ConfigError, match=r"identity.json is damaged .*choose another run folder"):
        run_study(make_study(clicks), tmp_path, trainer=FAKE)


def test_sampling_leaves_time_for_repeats(clicks: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    # every training says that it took a second: far fewer fit than really would
    config = make_study(clicks, trials=100, time_limit="8s", workers=2)
    records = run_study(
        config, tmp_path / "run", progress=events.append, trainer="search_trainers:slow_train"
    )
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any("leaves time for the repeats" in text for text in notices)
    assert 0 < len(role(records, "search")) < 100
    assert role(records, "repeat")


def test_no_training_starts_after_the_time_limit(clicks: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = make_study(clicks, trials=100, time_limit="0.2s")
    begun = time.monotonic()
    run_study(config, tmp_path / "run", progress=events.append, trainer="search_trainers:slow_train")
    assert time.monotonic() - begun < 5
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert any("raise time_limit" in text for text in notices)


def test_sampling_stops_when_the_front_stands_still(clicks: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    config = make_study(clicks, trials=100, patience_trials=4, sampler="random", seeds=1)
    records = run_study(config, tmp_path / "run", progress=events.append, trainer=FAKE)
    assert len(role(records, "search")) < 100
    assert any("brought nothing to the front" in e.text for e in events if isinstance(e, Notice))


def test_a_space_with_few_candidates_is_used_up(clicks: Path, tmp_path: Path) -> None:
    space = {"methods": [{"method": "uniform", "knobs": {"bits": [2, 4, 8]}, "baselines": [{"bits": 8}]}]}
    config = make_study(clicks, search_space=space, trials=50, seeds=1)
    records = run_study(config, tmp_path / "run", trainer=FAKE)
    assert sorted(record.candidate for record in records) == [
        "full_precision()",
        "uniform(bits=2)",
        "uniform(bits=4)",
        "uniform(bits=8)",
    ]


def test_a_space_of_baselines_alone_needs_no_sampler(clicks: Path, tmp_path: Path) -> None:
    space = {"methods": [{"method": "fp16"}, {"method": "uniform", "baselines": [{"bits": 4}]}]}
    config = make_study(clicks, search_space=space, seeds=1, budgets=["1/1.2"])
    records = run_study(config, tmp_path / "run", trainer=FAKE)
    assert [record.method for record in records] == ["full_precision", "fp16", "uniform"]


def test_fitted_baselines_are_trained_once_for_every_budget_and_a_changed_budget_is_refused(
    clicks: Path, tmp_path: Path
) -> None:
    space = {"methods": [{"method": "frequency_cut", "baselines": [{"keep": "fit", "bits": 16}]}]}
    config = make_study(clicks, search_space=space, seeds=1, budgets=["1/3", "1/4"])
    records = run_study(config, tmp_path / "run", trainer=FAKE)
    assert [record.method for record in records] == ["full_precision", "frequency_cut", "frequency_cut"]
    first, second = records[1:]
    spec = prepare_inputs(config, tmp_path / "run").spec
    limits = limits_of(config, spec)
    for record, budget in zip((first, second), sorted(limits.budgets_bytes, reverse=True), strict=True):
        size = make_method(record.method, record.parameters).footprint(spec).high_bytes
        assert 0.8 * budget < size <= budget
    assert run_study(config, tmp_path / "run", trainer=FAKE) == records
    changed = make_study(clicks, search_space=space, seeds=1, budgets=["1/3", "1/5"])
    with pytest.raises(ConfigError, match="budgets"):
        run_study(changed, tmp_path / "run", trainer=FAKE)


def test_lost_journals_are_made_again_from_the_trials(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_study(make_study(clicks), run, trainer=FAKE)
    before = {trial.user_attrs["number"]: (trial.values, trial.constraints) for trial in told(run)}
    (run / "study.journal").unlink()
    run_study(make_study(clicks), run, trainer=FAKE)
    after = {trial.user_attrs["number"]: (trial.values, trial.constraints) for trial in told(run)}
    assert after == before and before


def test_the_log_tells_the_course_of_the_search(clicks: Path, tmp_path: Path) -> None:
    records = run_study(make_study(clicks), tmp_path / "run", trainer=FAKE)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "opened" and lines[-1]["event"] == "ended"
    assert {line["number"] for line in lines if line["event"] == "complete"} == {
        record.number for record in records if record.state == "complete"
    }


def test_every_ended_trial_is_told_with_the_standing(clicks: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    records = run_study(make_study(clicks), tmp_path / "run", progress=events.append, trainer=FAKE)
    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert sorted(event.record.number for event in ended) == [record.number for record in records]
    best = ended[-1].standing.best
    assert [b.budget_bytes for b in best] == sorted((b.budget_bytes for b in best), reverse=True)
    assert all(b.bytes is None or b.bytes <= b.budget_bytes for b in best)


def test_workers_change_no_reference_and_no_baseline(clicks: Path, tmp_path: Path) -> None:
    one = run_study(make_study(clicks, workers=1), tmp_path / "one", trainer=FAKE)
    three = run_study(make_study(clicks, workers=3), tmp_path / "three", trainer=FAKE)
    fixed = [replace(r, fte=None) for r in one if r.role in ("reference", "baseline")]
    assert fixed == [replace(r, fte=None) for r in three if r.role in ("reference", "baseline")]


def test_a_worker_of_another_version_ends_the_search_with_a_message() -> None:
    from autoembed.search.driver import _record
    from autoembed.search.folder import Assignment

    assignment = Assignment(0, "x", "x", {}, 0, "search")
    assert _record(assignment, state="failed", reason="no luck").reason == "no luck"
    with pytest.raises(StudyError, match="invented: autoembed was changed"):
        _record(assignment, state="complete", invented=1)
