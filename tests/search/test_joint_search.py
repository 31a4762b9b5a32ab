"""`search_space: joint` as an ordinary search: records, front, export; killed between points, it goes on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import run_command
from rich.console import Console
from search_study import make_study

from autoembed.config import ConfigError
from autoembed.damage import DamagedError
from autoembed.export.candidate import load_candidate
from autoembed.front.record import AUC_DROPS
from autoembed.joint.config import JointConfig
from autoembed.plan import plan_bytes
from autoembed.record import TrialRecord
from autoembed.report.explain import explanation
from autoembed.run import explain_trial, export_pick, pick_trial, run_front, walked_plans
from autoembed.search.driver import run_study
from autoembed.search.events import Event, Notice, StudyEnded, StudyStarted, TrialEnded
from autoembed.search.folder import RunFolder
from autoembed.search.inputs import open_inputs
from autoembed.search.joint_seed import trunk_assignment, walk_seed
from autoembed.search.joint_trials import RECIPES, RETRAINED, TUNING, check_numbers
from autoembed.search.pool import Pool
from autoembed.search.preview import preview
from autoembed.search.retrain import Retrained, retrain_trial
from autoembed.search.study import StudyConfig, StudyError, load_study


def joint_study(clicks: Path, **changes: object) -> StudyConfig:
    study = make_study(clicks, budgets=["1/2", "1/6"], seeds=2)
    return study.model_copy(update={"search_space": "joint", **changes})


def timeless(record: TrialRecord) -> TrialRecord:
    return replace(record, seconds=0.0, cost_seconds=0.0, fte=None)


def test_every_budget_gets_a_model_within_it_and_the_best_is_exported(
    clicks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = joint_study(clicks)
    records = run_study(config, run)
    assert [(r.method, r.seed, r.role) for r in records] == [
        *(("full_precision", 0, "reference"), ("joint", 0, "search"), ("joint", 0, "search")),
        *(("full_precision", 1, "repeat"), ("joint", 1, "repeat"), ("joint", 1, "repeat")),
    ]
    inputs = open_inputs(config, run)
    for record in records:
        budget = record.parameters.get("budget", record.total_bytes)
        assert record.total_bytes <= budget
        folder = RunFolder(run).trial(record.number)
        packed, _ = load_candidate(folder, config.model, inputs.data, record.checksums)
        assert plan_bytes(packed.plan).total == record.total_bytes
        assert (folder / "tables.safetensors").stat().st_size == record.total_bytes
    for number in (1, 2, 4, 5):
        content, full_bytes = explain_trial(run, number)
        parts = [group for field in content["fields"] for group in field["groups"]]
        assert sum(field["bytes"] for field in content["fields"]) == sum(part["bytes"] for part in parts)
        assert content["loss"] == pytest.approx(sum(part["loss"] for part in parts))
        assert content["bound"] <= content["loss"] + 1e-12 and full_bytes == records[0].total_bytes
        Console(width=150).print(explanation(content, full_bytes))
        said = capsys.readouterr().out
        assert "predicted loss" in said and "planned in" in said and content["planning_seconds"] > 0
        assert records[number].reason and records[number].reason in said
        assert ("of labels at rate" in said) == (number in (1, 4)), "settings are tried at the first budget"
    with pytest.raises(ValueError, match=r"trial 0 has no explanation.*here 1, 2, 4, 5"):
        explain_trial(run, 0)
    front = run_front(run)
    assert len(front.points) == 3 and front.reference is not None
    verified = export_pick(run, pick_trial(run, budget="1/2"), tmp_path / "model")
    assert verified.largest_difference <= 1e-5
    assert run_study(config, run) == records  # finished: nothing runs again


def test_a_search_for_the_smallest_model_within_a_drop_answers_that(clicks: Path, tmp_path: Path) -> None:
    joint = JointConfig(fine_tune=1.0, teacher=1.0, max_drop=0.017)
    config = joint_study(clicks, budgets=("1/2", "1/4", "1/20", "1/30"), seeds=1, joint=joint)
    records = run_study(config, tmp_path / "run")
    trunk, points = records[0], records[1:]
    drops = [trunk.valid_auc - point.valid_auc for point in points]
    within = [drop <= 0.017 for drop in drops]
    assert within[0] and within == sorted(within, reverse=True)
    assert sum(point.steps for point in points) <= trunk.steps
    over = within.index(False) if False in within else len(points)
    assert all(point.steps == 0 for point in points[over + 1 :])
    front = run_front(tmp_path / "run")
    (answer,) = (a for a in front.iso_accuracy if a.asked == 0.017)
    smallest = min((p for p, good in zip(points, within, strict=True) if good), key=lambda p: p.total_bytes)
    assert answer.pick is not None and answer.pick.trial == smallest.number
    with pytest.raises(ConfigError, match=r"joint\.max_drop: 0\.017 -> 0\.02"):
        other = config.model_copy(update={"joint": joint.model_copy(update={"max_drop": 0.02})})
        run_study(other, tmp_path / "run")


def test_data_of_nothing_but_bags_is_walked_explained_and_exported(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    data = {
        "path": "bags.csv",
        "label": "click",
        "categorical": {"tags": {"bag": True, "pooling": "mean"}, "genres": {"bag": True}},
        "split": {"random": {"valid": 0.2, "test": 0.2, "seed": 1}},
    }
    (tmp_path / "clicks.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    lines = ["click,tags,genres"]
    for _ in range(600):
        tags, genres = (random.integers(0, most, random.integers(0, 4)) for most in (30, 8))
        click = int(random.random() < (0.8 if 3 in genres else 0.3))
        lines.append(f"{click},{'|'.join(map(str, tags))},{'|'.join(map(str, genres))}")
    (tmp_path / "bags.csv").write_text("\n".join(lines) + "\n")
    config = joint_study(tmp_path, seeds=1)
    run = tmp_path / "run"
    records = run_study(config, run)
    assert [(record.method, record.state) for record in records] == [
        *(("full_precision", "complete"), ("joint", "complete"), ("joint", "complete")),
    ]
    for number in (1, 2):
        content, full_bytes = explain_trial(run, number)
        assert [field["name"] for field in content["fields"]] == ["tags", "genres"]
        assert sum(field["lookups"] for field in content["fields"]) == pytest.approx(1.0)
        explanation(content, full_bytes)
    verified = export_pick(run, pick_trial(run, trial=2), tmp_path / "model")
    assert verified.largest_difference is not None and verified.largest_difference <= 1e-5


def test_a_walk_stopped_between_points_ends_as_if_never_stopped(clicks: Path, tmp_path: Path) -> None:
    config = joint_study(clicks, seeds=1)
    whole = run_study(config, tmp_path / "whole")
    ended: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, TrialEnded):
            ended.append(event.record.number)
            if len(ended) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(config, tmp_path / "stopped", progress=stop)
    assert ended == [0, 1]
    resumed = run_study(config, tmp_path / "stopped")
    assert [timeless(r) for r in resumed] == [timeless(r) for r in whole]
    for record in whole:
        files = [
            (RunFolder(tmp_path / name).trial(record.number) / "tables.safetensors").read_bytes()
            for name in ("whole", "stopped")
        ]
        assert files[0] == files[1]


def test_a_removed_trial_comes_back_with_its_files_and_its_explanation(clicks: Path, tmp_path: Path) -> None:
    config, run = joint_study(clicks, seeds=1), tmp_path / "run"
    walked = run_study(config, run)
    for number in (0, 1, 2):
        folder = RunFolder(run).trial(number)
        names = ["tables.safetensors", "network.safetensors", *(["explained.json"] if number else [])]
        before = {name: (folder / name).read_bytes() for name in names}
        shutil.rmtree(folder)
        found = run_study(config, run)
        assert [timeless(record) for record in found] == [timeless(record) for record in walked]
        assert {name: (folder / name).read_bytes() for name in names} == before
    # a kill after the last point was kept and before its record
    (RunFolder(run).trial(2) / "record.json").unlink()
    (RunFolder(run).trial(2) / "explained.json").unlink()
    for file in run.glob("walks/*/point_*/point.json"):  # as an earlier version kept it
        content = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in content.items() if k not in ("teacher", "rate")}))
    assert len(run_study(config, run)) == len(walked)
    assert explain_trial(run, 2)[0]["budget_bytes"] == walked[2].parameters["budget"]


def test_plans_tell_the_dimension_also_of_runs_that_did_not_keep_it(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = joint_study(clicks, seeds=1)
    run_study(config, run)
    kept = RunFolder(run).trial(1) / "explained.json"
    content = json.loads(kept.read_text())
    assert content.pop("dim") == config.model.dim
    kept.write_text(json.dumps(content))
    plans, damaged = walked_plans(run)
    assert [plan["dim"] for plan in plans] == [config.model.dim] * 2 and not damaged


def test_damage_to_a_run_is_told_with_the_file_and_what_to_do_and_undone_by_it(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = joint_study(clicks, seeds=1), tmp_path / "run"
    walked = run_study(config, run)
    trials = [RunFolder(run).trial(number) for number in range(3)]
    (trials[1] / "explained.json").write_text("{")
    with pytest.raises(DamagedError, match=rf"1/explained\.json: .*remove the folder {trials[1]} and run"):
        explain_trial(run, 1)
    assert run_command(monkeypatch, "plot", run) == 0  # the other point's plan is drawn
    printed = capsys.readouterr()
    drawn = printed.out.replace("\n", "")  # the console wraps long paths
    assert "left out of the plans" in printed.err and "front_plans.png" in drawn
    shutil.rmtree(trials[1])
    # whatever of the trunk is damaged is undone by removing its record
    for file in (run / "walks" / "0" / "trunk.json", trials[0] / "tables.safetensors"):
        file.write_bytes(file.read_bytes()[:-30])
        with pytest.raises(StudyError, match=f"{file}: cut off or altered.*remove {trials[0]}/record.json"):
            run_study(config, run)
        (trials[0] / "record.json").unlink()
        run_study(config, run)
        shutil.rmtree(trials[1])
    assert [timeless(record) for record in run_study(config, run)] == [timeless(r) for r in walked]
    assert explain_trial(run, 1)[0]["budget_bytes"] == walked[1].parameters["budget"]


def test_budgets_that_no_plan_meets_are_left_out_and_said(clicks: Path, tmp_path: Path) -> None:
    config = joint_study(clicks, budgets=("1/2", 64), seeds=1)
    notices: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.text)

    records = run_study(config, tmp_path / "run", progress=listen)
    assert len(records) == 2
    assert any("no plan meets 64 bytes: the smallest takes" in text for text in notices)
    name, told, low, _, _ = preview(config, tmp_path / "run")[1]
    assert name == "joint" and low.endswith("B") and told in notices
    assert preview(joint_study(clicks), tmp_path / "run")[1][1] == ""
    with pytest.raises(ValueError, match="raise a budget"):
        run_study(joint_study(clicks, budgets=(64,), seeds=1), tmp_path / "none")


@pytest.mark.parametrize(
    ("seeds", "joint", "budgets", "message"),
    [
        (100, {}, 39, ""),
        (100, {}, 40, "100 seeds of 40 budgets need 4,100 trials, .* numbers for 4,000; take fewer seeds or"),
        (50, {"tune": 2.0}, 9, ""),
        (
            51,
            {"tune": 2.0},
            9,
            "trunks of 51 seeds to tune need 1,020 .* numbers for 1,000; take fewer seeds",
        ),
        (51, {}, 9, ""),
        (1, {"recipes": 100}, 20, ""),
        (
            1,
            {"recipes": 100},
            21,
            "99 more recipes of 21 budgets need 2,079 .* for 2,000; take fewer recipes",
        ),
    ],
)
def test_a_study_of_more_trials_than_numbers_is_refused_before_anything_is_trained(
    clicks: Path, seeds: int, joint: dict[str, object], budgets: int, message: str
) -> None:
    study = joint_study(clicks, seeds=seeds, joint=JointConfig.model_validate(joint))
    if not message:
        check_numbers(study, budgets)
        return
    with pytest.raises(ConfigError, match=message):
        check_numbers(study, budgets)


def test_the_search_itself_refuses_more_trials_than_numbers(clicks: Path, tmp_path: Path) -> None:
    config = joint_study(clicks, seeds=100, budgets=tuple(range(3000, 3050)))
    with pytest.raises(ConfigError, match="100 seeds of 50 budgets need"):
        run_study(config, tmp_path / "run")
    assert not RunFolder(tmp_path / "run").numbers()


def test_a_time_limit_keeps_what_is_finished_and_says_what_is_left(clicks: Path, tmp_path: Path) -> None:
    config = joint_study(clicks, seeds=1, time_limit="0.01s")
    notices: list[str] = []
    records = run_study(
        config, tmp_path / "run", progress=lambda e: notices.append(e.text) if isinstance(e, Notice) else None
    )
    assert [record.method for record in records] == ["full_precision"]
    assert any("2 points left; raise time_limit" in text for text in notices)
    assert len(run_study(config.model_copy(update={"time_limit": None}), tmp_path / "run")) == 3


def test_a_plan_trained_anew_is_kept_beside_the_walked_one_and_judged(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoembed.search.retrain.PAYS", -1.0)
    config = joint_study(clicks, seeds=2)
    run = tmp_path / "run"
    walked = run_study(config, run)
    found = retrain_trial(run, 5, trainings=2.0)
    assert found.walked == walked[5] and found.record.seed == found.walked.seed == 1
    assert found.record.number == RETRAINED and found.record.total_bytes == walked[5].total_bytes
    assert found.record.steps == 2 * walked[3].steps and found.record.fte and found.record.fte > 0
    assert f"{found.gain:+.5f}" in found.verdict and ("does not pay" in found.verdict) == (not found.pays)
    again = retrain_trial(run, 5, trainings=2.0)
    assert again.record == found.record
    monkeypatch.setattr("autoembed.search.retrain.PAYS", 1.0)
    cost = run_front(run).cost
    in_vain = retrain_trial(run, 2, trainings=0.5).record
    assert (in_vain.number, in_vain.role) == (RETRAINED + 1, "aside")
    front = run_front(run)
    trials = {trial for point in front.points for trial in point.trials}
    assert RETRAINED in trials and in_vain.number not in trials
    assert front.cost.trials == cost.trials + 1 and front.cost.fte and cost.fte and front.cost.fte > cost.fte
    content, _ = explain_trial(run, RETRAINED)
    assert content["budget_bytes"] == walked[5].parameters["budget"]
    verified = export_pick(run, pick_trial(run, trial=RETRAINED), tmp_path / "model")
    assert verified.largest_difference <= 1e-5
    manifest = json.loads((tmp_path / "model" / "manifest.json").read_text())
    of_point = next(point for point in front.points if RETRAINED in point.trials)
    assert manifest["provenance"]["full_training_equivalents"] == pytest.approx(of_point.fte)
    ended: list[Event] = []
    assert len(run_study(config, run, progress=ended.append)) == len(walked) + 2  # the search is finished
    standing = next(event for event in ended if isinstance(event, StudyEnded)).standing
    assert standing.spent_fte == pytest.approx(front.cost.fte) and standing.finished == standing.planned
    with pytest.raises(ValueError, match=r"trial 0 is no point of .*here 1, 2, 4, 5, 7000, 7001$"):
        retrain_trial(run, 0, 1.0)
    picked = retrain_trial(run, RETRAINED, trainings=2.0)  # as a budget picks it, once it pays
    assert (picked.walked, picked.record) == (found.walked, found.record)
    longer = retrain_trial(run, RETRAINED, trainings=0.25)  # of the walked plan, but judged by the better one
    assert (longer.walked, longer.record.number) == (found.record, RETRAINED + 2)
    assert f"trial {RETRAINED} as trained anew before: valid AUC" in longer.verdict
    assert longer.record.reason == "trial 5 trained anew"
    for trainings in (0.0, float("inf"), float("nan"), 1e306):
        with pytest.raises(ValueError, match="above 0 and up to 1000, got"):
            retrain_trial(run, 1, trainings)


def test_two_seeds_walk_at_once_from_the_first_trunk_on(clicks: Path, tmp_path: Path) -> None:
    config, run = joint_study(clicks, seeds=2, workers=2, time_limit="0.01s"), tmp_path / "run"
    first = run_study(config, run)
    assert {record.method for record in first} == {"full_precision"}  # no point yet
    again = run_study(config.model_copy(update={"time_limit": None}), run)
    assert [record.method for record in again] == ["full_precision", "joint", "joint"] * 2


def test_retraining_is_judged_by_the_objective() -> None:
    point = TrialRecord(1, "joint(budget=9)", "joint", {"budget": 9}, 0, "search", "complete", {"total": 9})
    walked = replace(point, valid_auc=0.70, valid_logloss=0.50)
    anew = replace(point, number=7000, valid_auc=0.69, valid_logloss=0.48)
    by_auc, by_loss = Retrained(walked, anew), Retrained(walked, anew, "logloss")
    assert not by_auc.pays and by_auc.gain == pytest.approx(-0.01)
    assert by_loss.pays and by_loss.gain == pytest.approx(0.02)
    assert "valid log loss 0.50000; trained anew, trial 7000: 0.48000 (-0.02000)" in by_loss.verdict


def test_an_interrupt_says_how_to_go_on_and_the_walk_does(clicks: Path, tmp_path: Path) -> None:
    config, run, told = joint_study(clicks, seeds=1), tmp_path / "run", list[Event]()

    def interrupt(event: Event) -> None:
        told.append(event)
        if isinstance(event, TrialEnded) and event.record.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(config, run, progress=interrupt)
    assert isinstance(told[-1], Notice) and "trials are finished and kept" in told[-1].text
    assert f"run folder {run} goes on from here" in told[-1].text
    assert len(run_study(config, run)) == 3


def test_the_time_left_falls_as_points_end_and_is_none_before_a_trunk(clicks: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    records = run_study(joint_study(clicks, seeds=1), tmp_path / "run", progress=told.append)
    standings = [e.standing for e in told if isinstance(e, (StudyStarted, TrialEnded, StudyEnded))]
    left = [standing.eta_seconds for standing in standings]
    assert left[0] is None and left[-1] == 0.0
    assert left[1:] == sorted(left[1:], reverse=True) and len(left) == 5
    steps = JointConfig().fine_tune
    assert left[1] == pytest.approx(records[0].seconds * 1.2 * steps)  # the trunk is done, not the points


def test_a_front_is_drawn_and_picked_from_where_data_and_earlier_runs_are_gone(
    clicks: Path, tmp_path: Path
) -> None:
    config, run = joint_study(clicks, seeds=1), tmp_path / "run"
    run_study(config, run)
    before, picked = run_front(run), pick_trial(run, budget="1/2").point
    content = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**content, "warm_start": ["../gone"]}))
    shutil.rmtree(open_inputs(config, run).data.path)
    assert run_front(run) == before
    assert pick_trial(run, budget="1/2").point == picked
    with pytest.raises(ConfigError, match="gone is not the folder of a search"):
        load_study(run / "config.yaml", [f"data={clicks / 'clicks.yaml'}"])


def test_other_recipes_are_walked_once_and_the_best_goes_to_the_other_seeds(
    clicks: Path, tmp_path: Path
) -> None:
    base = joint_study(clicks, budgets=("1/2", "1/8"))
    config = base.model_copy(update={"joint": base.joint.model_copy(update={"recipes": 3})})
    run = tmp_path / "run"
    ended: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, TrialEnded):
            ended.append(event.record.number)
            if event.record.number == RECIPES:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(config, run, progress=stop)
    records = run_study(config, run)
    tried = [record for record in records if RECIPES <= record.number < RETRAINED]
    assert tried and {record.role for record in tried} == {"search"} and {r.seed for r in tried} == {0}
    assert all(set(r.parameters) == {"budget", "rate", "l2", "teacher", "step_rate"} for r in tried)
    recipes = {json.dumps(list(r.parameters.values())[1:]) for r in tried}
    assert len(recipes) == 2
    repeats = [record for record in records if record.seed == 1 and record.method == "joint"]
    known = {record.candidate for record in records if record.seed == 0}
    assert len(repeats) == 2 and {record.candidate for record in repeats} <= known
    assert run_study(config, run) == records
    results = sorted((run / "walks" / "0").glob("recipe-*/recipe.json"))
    whole = [number for number, path in enumerate(results) if not json.loads(path.read_text())["stopped"]]
    assert whole, "some recipe is walked to its end"
    shutil.rmtree(RunFolder(run).trial(RECIPES + whole[0] * 2 + 1))
    again = run_study(config, run)
    assert [timeless(record) for record in again] == [timeless(record) for record in records]
    results[0].write_text("{")
    with pytest.raises(DamagedError, match=rf"{results[0]}: .*remove {results[0]} and start again"):
        run_study(config, run)
    results[0].unlink()
    assert run_study(config, run) == again


@pytest.mark.parametrize("behind", [1, 2])
def test_a_recipe_that_fell_behind_stays_stopped_where_a_crash_came_before_that_was_kept(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    run = tmp_path / "run"
    run_study(joint_study(clicks, seeds=1), run)
    content = yaml.safe_load((run / "config.yaml").read_text())
    content["joint"]["recipes"] = 2
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    # every recipe falls behind at the same place; in this process, as others would not see it
    monkeypatch.setattr(
        "autoembed.search.joint_seed.falls_behind", lambda _, current, seed: len(current.values) == behind
    )
    walk_seed(run, trunk_assignment(0, 0), lambda event: None)
    records, result = RunFolder(run).records(), run / "walks" / "0" / "recipe-1" / "recipe.json"
    last = RECIPES + behind - 1
    assert [record.number for record in records] == [0, 1, 2, *range(RECIPES, last + 1)]
    for removed in ([], [last], range(RECIPES, last + 1), [RECIPES]):  # the record of a point comes last
        assert json.loads(result.read_text())["stopped"]
        result.unlink()
        for number in removed:
            (RunFolder(run).trial(number) / "record.json").unlink()
        walk_seed(run, trunk_assignment(0, 0), lambda event: None)
        assert list(map(timeless, RunFolder(run).records())) == list(map(timeless, records))
        assert not RunFolder(run).trial(last + 1).exists()
    assert json.loads(result.read_text())["stopped"]


def test_short_trainings_that_tuned_the_trunk_cost_and_are_no_points(clicks: Path, tmp_path: Path) -> None:
    base = joint_study(clicks, seeds=1)
    config = base.model_copy(update={"joint": base.joint.model_copy(update={"tune": 3.0, "fine_tune": 0.0})})
    records = run_study(config, tmp_path / "run")
    short = [record for record in records if record.role == "short"]
    assert len(short) >= 2 and all(TUNING <= record.number < RECIPES and record.seconds for record in short)
    front = run_front(tmp_path / "run")
    assert {p.method for p in front.points} == {"full_precision", "joint"} and len(front.points) == 3
    assert front.cost.fte is not None
    assert front.cost.fte > sum(p.fte for p in front.points if p.fte is not None)
    assert run_study(config, tmp_path / "run") == records


def test_seeds_walked_side_by_side_give_what_they_give_one_after_another(
    clicks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = joint_study(clicks, budgets=("1/6",))
    alone = run_study(config.model_copy(update={"workers": 1}), tmp_path / "alone")
    busy: list[int] = []

    class Watched(Pool):
        def submit(self, number: int) -> None:
            super().submit(number)
            busy.append(self._size - self.free)

    monkeypatch.setattr("autoembed.search.joint.Pool", Watched)
    beside = run_study(config.model_copy(update={"workers": 2}), tmp_path / "beside")
    assert busy[:2] == [1, 2]  # the second seed waits for the reference, not for the first seed's walk
    assert [timeless(record) for record in beside] == [timeless(record) for record in alone]
    assert all(record.fte is not None for record in beside)


def test_a_walk_that_fails_ends_the_search_with_the_seed_and_the_reason(clicks: Path, tmp_path: Path) -> None:
    config, run = joint_study(clicks, seeds=1, budgets=("1/6",)), tmp_path / "run"
    of_another = run / "walks" / "0" / "walk.json"
    of_another.parent.mkdir(parents=True)
    of_another.write_text('{"about": {"seed": 7}, "points": []}', encoding="utf-8")
    with pytest.raises(StudyError, match=r"the walk of seed 0 failed: CheckpointError.*walks/0/error.txt"):
        run_study(config, run)
    assert "CheckpointError" in (run / "walks" / "0" / "error.txt").read_text()
    assert not list((run / "trials").glob("*/error.txt"))
    assert [record.number for record in RunFolder(run).records()] == [0]  # the trunk is kept


def test_the_drop_of_a_search_is_asked_of_the_front_where_it_is_one_of_auc(
    clicks: Path, tmp_path: Path
) -> None:
    joint = JointConfig(fine_tune=0.0, order="frequency", max_drop=0.0007)
    run = tmp_path / "run"
    run_study(joint_study(clicks, budgets=("1/2",), seeds=1, joint=joint), run)
    content = yaml.safe_load((run / "config.yaml").read_text())
    by_logloss = {"objective": "logloss", "training": content["training"] | {"metric": "logloss"}}
    for changes, asked in (
        ({}, sorted((*AUC_DROPS, 0.0007))),
        ({"joint": {"max_drop": 0.0005}}, [*AUC_DROPS]),
        ({"joint": {}}, [*AUC_DROPS]),
        (by_logloss, [*AUC_DROPS]),  # the drop is of log loss there
        ({"search_space": "smoke"}, [*AUC_DROPS]),  # nothing reads the joint section there
    ):
        (run / "config.yaml").write_text(yaml.safe_dump({**content, **changes}))
        assert [answer.asked for answer in run_front(run).iso_accuracy] == asked
