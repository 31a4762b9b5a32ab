"""Several search spaces in one study, warm starts from earlier ones, and promotion of short trainings."""

from pathlib import Path

import pytest
import yaml
from search_study import SPACE, make_study

from autoembed.config import ConfigError
from autoembed.record import TrialRecord
from autoembed.run import run_front
from autoembed.search.driver import run_study
from autoembed.search.events import Event, StudyEnded, TrialEnded
from autoembed.search.folder import RunFolder
from autoembed.search.joint_trials import FIRST_SINGLE

FAKE = "search_trainers:train"


def candidates(records: list[TrialRecord], role: str) -> list[str]:
    return [record.candidate for record in records if record.role == role and record.state == "complete"]


def test_a_joint_search_and_single_methods_share_one_folder_and_one_front(
    clicks: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({"methods": [{"method": "uniform", "knobs": {"bits": [1, 2, 4]}}]}))
    events: list[Event] = []
    config = make_study(clicks, search_space=["joint", str(space)], budgets=["1/2", "1/6"], trials=3)
    run = tmp_path / "run"
    records = run_study(config, run, progress=events.append)
    walked = [record for record in records if record.number < FIRST_SINGLE]
    single = [record for record in records if record.number >= FIRST_SINGLE]
    assert [record.method for record in walked] == ["full_precision", "joint", "joint"] * 2
    assert len(candidates(single, "search")) == 3 and {r.method for r in single} == {"uniform"}
    assert all(record.fte and record.fte > 0 for record in single)  # in trainings of the walk's trunk
    assert sum(isinstance(event, StudyEnded) for event in events) == 1
    front = run_front(run)
    assert {point.method for point in front.points} == {"full_precision", "joint", "uniform"}
    assert run_study(config, run) == records  # finished: nothing runs again


def test_what_tunes_a_trunk_costs_and_is_promoted_to_nothing(clicks: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump({"methods": [{"method": "uniform", "knobs": {"bits": [1, 2, 4]}}]}))
    config = make_study(
        *(clicks,),
        **{"search_space": ["joint", str(space)], "joint": {"tune": 1.0}, "budgets": ["1/2"], "seeds": 1},
        **{"trials": 3, "promotion": {"share": 0.5, "of": 2, "keep": 1}},
    )
    run = tmp_path / "run"
    for _ in range(2):  # the second call finds everything finished
        events: list[Event] = []
        records = run_study(config, run, progress=events.append)
        (ended,) = [event for event in events if isinstance(event, StudyEnded)]
        tuning = [r for r in records if r.role == "short" and r.method == "full_precision"]
        assert tuning and all(record.number < FIRST_SINGLE for record in tuning)
        assert len(candidates(records, "search")) == 1 + 2  # the point, and two of the three short ones
        assert ended.standing.finished == ended.standing.planned == len(records) - len(tuning)
        assert ended.standing.spent_fte == pytest.approx(run_front(run).cost.fte)


def test_two_spaces_that_search_one_method_are_refused(clicks: Path, tmp_path: Path) -> None:
    config = make_study(clicks, search_space=["uniform", "default"])
    with pytest.raises(ConfigError, match=r"uniform and default both search uniform; leave one of them out"):
        run_study(config, tmp_path / "run", trainer=FAKE)


def test_settings_of_an_earlier_front_run_first_and_teach_the_sampler(clicks: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    first = run_study(make_study(clicks), earlier, trainer=FAKE)
    ended: list[str] = []

    def saw(event: Event) -> None:
        if isinstance(event, TrialEnded):
            ended.append(event.record.candidate)

    only_cut = {"methods": [SPACE["methods"][2]]}
    config = make_study(clicks, warm_start=[str(earlier)], search_space=only_cut, trials=2, seed=5)
    later = run_study(config, tmp_path / "later", progress=saw, trainer=FAKE)
    wanted = {p.candidate for p in run_front(earlier).points if p.method == "frequency_cut"}
    warm = candidates(later, "baseline")
    assert warm and set(warm) <= wanted and set(warm) <= {record.candidate for record in first}
    assert ended[1 : 1 + len(warm)] == warm  # right behind the reference
    assert all(RunFolder(tmp_path / "later").assignment(n).proposal for n in range(1, 1 + len(warm)))  # type: ignore[union-attr]


def test_a_warm_start_from_no_run_folder_is_refused_by_name(clicks: Path) -> None:
    with pytest.raises(ConfigError, match=r"warm_start.*nowhere is not the folder of a search"):
        make_study(clicks, warm_start=["nowhere"])


def test_the_best_of_short_trainings_are_trained_in_full(clicks: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = make_study(
        *(clicks,),
        **{"promotion": {"share": 0.5, "of": 3, "keep": 1}, "trials": 5, "seeds": 1, "budgets": ["1/1.5"]},
    )
    records = run_study(config, run, trainer=FAKE)
    short, full = candidates(records, "short"), candidates(records, "search")
    assert len(short) == 5 and len(full) == 2  # one of the first three, one of the two that are left
    assert full[0] in short[:3] and full[1] in short[3:]
    folder = RunFolder(run)
    epochs = {record.role: folder.assignment(record.number).epochs for record in records}  # type: ignore[union-attr]
    assert epochs["short"] == 1 and epochs["search"] is None
    points = {point.candidate for point in run_front(run).points}
    assert set(full) <= points and not points.intersection(set(short) - set(full))
    assert run_study(config, run, trainer=FAKE) == records


def test_short_trainings_really_train_fewer_epochs(clicks: Path, tmp_path: Path) -> None:
    space = {"methods": [{"method": "uniform", "knobs": {"bits": [2, 4]}}]}
    promotion = {"share": 0.5, "of": 2, "keep": 1}
    config = make_study(clicks, promotion=promotion, trials=2, seeds=1, search_space=space)
    records = run_study(config, tmp_path / "run")
    steps = {record.role: record.steps for record in records}
    assert steps["short"] == steps["search"] / 2 == steps["reference"] / 2
    assert len(candidates(records, "short")) == 2 and len(candidates(records, "search")) == 1


def test_promoting_all_is_refused(clicks: Path) -> None:
    with pytest.raises(ConfigError, match="keep is 6 of 6, which promotes all"):
        make_study(clicks, promotion={"of": 6, "keep": 6})
