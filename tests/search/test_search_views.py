import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from search_study import SPACE, make_study

from autoembed.data.prepare import PrepareProgress
from autoembed.methods import make_method
from autoembed.search.driver import run_study
from autoembed.search.events import DataProgress, Standing, StudyEnded
from autoembed.search.inputs import prepare_inputs
from autoembed.search.preview import extents, preview
from autoembed.search.progress import LiveView, StageBar, format_seconds
from autoembed.space import load_space
from autoembed.stats import Stats

FAKE = "search_trainers:fail_at_4_bits"


def watch(clicks: Path, run: Path, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    with LiveView(console) as view:
        run_study(make_study(clicks, trials=8), run, progress=view, trainer=FAKE)
    return text.getvalue()


def test_without_a_terminal_a_search_is_told_in_plain_lines(clicks: Path, tmp_path: Path) -> None:
    lines = watch(clicks, tmp_path / "run", terminal=False).splitlines()
    (first,) = [line for line in lines if "budgets" in line]
    assert "full precision takes" in first and first.endswith("trainings planned, 1 at a time")
    assert any("reference full_precision() seed 0: valid auc 0.6968" in line for line in lines)
    assert any("failed: ArithmeticError: the loss is nan" in line for line in lines)
    assert any("full trainings spent, about" in line and line.endswith("left") for line in lines)
    assert any(line.startswith("within ") and "valid auc" in line for line in lines)
    assert lines[-1].startswith("done: ")
    assert "\x1b" not in "".join(lines)


def test_on_a_terminal_the_running_trials_and_the_best_are_drawn(clicks: Path, tmp_path: Path) -> None:
    text = watch(clicks, tmp_path / "run", terminal=True)
    assert "best valid auc" in text
    assert "budget" in text
    assert text.count("done: ") == 1


def test_a_search_that_ends_early_does_not_say_that_it_is_done() -> None:
    text = io.StringIO()
    with LiveView(Console(file=text, width=200, force_terminal=False)) as view:
        view(StudyEnded(2, Standing(2, 54, 2.22, 97.0, ())))
    assert text.getvalue() == "ended early: 2 of 54 trainings, 2.22 full trainings spent\n"


def test_preparing_data_shows_its_stages() -> None:
    text = io.StringIO()
    with StageBar(Console(file=text, force_terminal=False)) as bar:
        bar(PrepareProgress("read", 0.5, 100))
        bar(PrepareProgress("write", 1.0, 200))
    assert "read" in text.getvalue() and "write" in text.getvalue()
    with LiveView(Console(file=text, force_terminal=True)) as view:
        view(DataProgress("read", 0.5, 1234))
    assert "1,234 rows" in text.getvalue()


def test_seconds_are_written_for_people() -> None:
    assert [format_seconds(s) for s in (0.04, 8, 59.4, 61, 3600, 7500)] == [
        "0.0 s", "8.0 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 5 min"
    ]  # fmt: skip


def test_the_extent_of_an_entry_holds_every_candidate_of_it(clicks: Path, tmp_path: Path) -> None:
    spec = prepare_inputs(make_study(clicks), tmp_path).spec
    uniform, cut = extents(load_space(SPACE), spec, ())[-2:]
    for bits in (1, 2, 3, 4, 8):
        size = make_method("uniform", {"bits": bits}).footprint(spec).low_bytes
        assert uniform.low_bytes <= size <= uniform.high_bytes
    for keep in (0.1, 0.3, 0.77, 0.9):
        for bits in (2, 4, 8):
            size = make_method("frequency_cut", {"keep": keep, "bits": bits}).footprint(spec).low_bytes
            assert cut.low_bytes <= size <= cut.high_bytes


def test_a_fitted_setting_has_an_extent_for_every_budget_that_it_meets_or_a_problem(
    clicks: Path, tmp_path: Path
) -> None:
    spec = prepare_inputs(make_study(clicks), tmp_path).spec
    space = load_space({"methods": [{"method": "robe", "baselines": [{"ratio": "fit"}]}]})
    met = extents(space, spec, space.baselines(spec, [10, 3000, 5000]))
    assert [row.problem for row in met] == ["", ""] and met[0].high_bytes <= 3000 < met[1].high_bytes <= 5000
    for budgets in ([10], []):
        (row,) = extents(space, spec, space.baselines(spec, budgets))
        assert row.problem == "no ratio of robe fits a budget; raise the largest, or add one"


def test_a_preview_names_the_budget_that_each_method_can_meet(clicks: Path, tmp_path: Path) -> None:
    rows = preview(make_study(clicks, budgets=["1/1.5", "1/4"]), tmp_path / "run")
    assert [row[0] for row in rows] == ["full_precision", "fp16", "uniform", "uniform", "frequency_cut"]
    budget = {(row[0], row[1]): row[4] for row in rows}
    assert budget["full_precision", ""] == "none"
    assert budget["fp16", ""].endswith("KiB")
    assert len(set(budget.values())) == 3


def test_a_profile_that_cannot_store_a_method_says_so(clicks: Path, tmp_path: Path) -> None:
    space = {"methods": [{"method": "uniform", "baselines": [{"bits": 3}]}]}
    rows = preview(make_study(clicks, profile="fbgemm-cpu", search_space=space), tmp_path / "run")
    assert "cannot store 'int3'" in rows[1][4]


def test_a_method_that_needs_ranks_names_the_field_without_before_anything_is_trained(
    clicks: Path, tmp_path: Path
) -> None:
    spec = prepare_inputs(make_study(clicks), tmp_path).spec
    first, *others = spec.stats.fields
    hashed = replace(spec, stats=Stats((replace(first, ranked=False), *others)))
    fitted = {"methods": [{"method": "frequency_cut", "baselines": [{"keep": "fit", "bits": 4}]}]}
    (only,) = extents(load_space(fitted), hashed, load_space(fitted).baselines(hashed, [10**6]))
    assert f"needs rows in order of frequency; field {first.name!r}" in only.problem, "not a budget"
    problems = {row.method: row.problem for row in extents(load_space(SPACE), hashed, ())}
    assert f"needs rows in order of frequency; field {first.name!r}" in problems["frequency_cut"]
    assert not problems["uniform"]
