"""What studies/joint records of single methods: a pick replaces one that validates worse."""

import runpy
from pathlib import Path
from typing import Any

import pytest

STUDY = Path(__file__).parents[1] / "studies" / "joint" / "run.py"


def row(method: str, budget: int, seed: int, valid: float, data: str = "epinions") -> dict[str, Any]:
    return {"data": data, "method": method, "budget_bytes": budget, "seed": seed, "valid_auc": valid}


def test_a_pick_is_taken_over_where_it_validates_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = runpy.run_path(str(STUDY))
    (tmp_path / "epinions").mkdir()
    asked: list[Any] = []

    def single_rows(data: str, folder: Path, budgets: list[int]) -> list[dict[str, Any]]:
        asked.append((data, folder, budgets))
        return [
            row("robe", 10, 1, 0.70),
            row("robe", 20, 1, 0.72),
            row("robe", 20, 2, 0.74),
            row("lma", 10, 1, 0.60),
        ]

    monkeypatch.setitem(study["added"].__globals__, "single_rows", single_rows)
    old = [
        *(row("joint", budget, 1, 0.80) for budget in (20, 10)),
        row("robe", 10, 1, 0.71),
        row("robe", 20, 1, 0.72),
        row("joint", 7, 1, 0.9, data="frappe"),
    ]
    found = study["added"](old, tmp_path)
    assert asked == [("epinions", tmp_path / "epinions", [10, 20])]
    kept = [(r["method"], r["budget_bytes"], r["seed"], r["valid_auc"]) for r in found]
    assert kept[:3] == [("joint", 20, 1, 0.8), ("joint", 10, 1, 0.8), ("robe", 10, 1, 0.71)]
    assert sorted(kept[3:-1]) == [("lma", 10, 1, 0.6), ("robe", 20, 1, 0.72), ("robe", 20, 2, 0.74)]
    assert found[-1]["data"] == "frappe"


def test_one_lucky_seed_takes_the_place_of_no_pick_with_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = runpy.run_path(str(STUDY))
    (tmp_path / "epinions").mkdir()
    new = [row("robe", 10, 1, 0.90), *(row("lma", 10, seed, 0.90) for seed in (1, 2, 3))]
    monkeypatch.setitem(study["added"].__globals__, "single_rows", lambda *_: new)
    old = [row("joint", 10, 1, 0.9), *(row(m, 10, s, 0.7) for m in ("robe", "lma") for s in range(1, 6))]
    found = study["added"](old, tmp_path)
    assert [r["valid_auc"] for r in found if r["method"] == "robe"] == [0.7] * 5
    assert [r["valid_auc"] for r in found if r["method"] == "lma"] == [0.9] * 3


def test_picks_of_a_search_with_another_full_precision_stand_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, compare = runpy.run_path(str(STUDY)), runpy.run_path(str(STUDY.with_name("compare.py")))
    (tmp_path / "epinions").mkdir()
    seeds = (1, 2, 3)
    new = [
        *(row(m, 10, s, 0.6) for m in ("robe", study["SINGLES_FULL"]) for s in seeds),
        row("lma", 10, 1, 0.9),
    ]
    monkeypatch.setitem(study["added"].__globals__, "single_rows", lambda *_: new)
    old = [row("joint", 10, 1, 0.9), row(study["SINGLES_FULL"], 90, 1, 0.7), row("robe", 10, 1, 0.7)]
    found = study["added"](old, tmp_path, "fitted")
    assert [r for r in found if r in old] == old
    assert [r["valid_auc"] for r in found if r["method"] == "robe (fitted)"] == [0.6] * 3
    assert not any(r["method"] == "lma (fitted)" for r in found)  # of one seed
    for method, valid in (("robe", 0.7), ("robe (fitted)", 0.6)):
        assert {r["valid_auc"] for r in compare["beside"](found, method).values()} == {valid}
    assert study["added"](found, tmp_path, "fitted") == found  # the reference is not taken over again


def test_a_budget_that_singles_were_not_asked_for_takes_the_best_pick_that_fits() -> None:
    study = runpy.run_path(str(STUDY.with_name("compare.py")))
    pick, within = study["Pick"], study["pick_within"]
    budgets = {
        100: {1: pick(90, 0.7, 0.0), 2: pick(101, 0.9, 0.0)},
        80: {1: pick(70, 0.6, 0.0)},
        60: {1: pick(50, 0.65, 0.0)},
    }
    assert within(budgets, 80) is budgets[80]
    assert within(budgets, 100) is budgets[100]
    assert within(budgets, 90) is budgets[60]
    assert within(budgets, 101) is budgets[100]
    assert within(budgets, 49) == {}


def test_searches_within_a_drop_are_told_by_data_and_drop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, compare = (runpy.run_path(str(STUDY.with_name(name))) for name in ("run.py", "compare.py"))
    rows = []
    for drop, lost in (("0.0005", 0.001), ("0.002", 0.004)):
        for seed in (1, 2):
            full = {"method": f"full_precision within {drop}", "budget_bytes": 800, "total_bytes": 800}
            point = {"method": f"joint within {drop}", "budget_bytes": 100, "total_bytes": 99}
            values = {"data": "frappe", "seed": seed, "test_logloss": 0.5}
            rows.append(values | full | {"valid_auc": 0.9, "test_auc": 0.8, "cost_fte": 2.0})
            rows.append(
                values | point | {"valid_auc": 0.9 - lost, "test_auc": 0.8 - seed * lost, "cost_fte": 1.0}
            )
    file = tmp_path / "within.csv"
    study["write"](rows, file)
    assert study["beside_others"]([], file) == study["read"](file) and study["read"](tmp_path / "none") == []
    monkeypatch.setitem(compare["print_within"].__globals__, "SEARCHES_WITHIN", file)
    compare["print_within"]()
    said = capsys.readouterr().out
    assert said.count("trainings of the seed's own trunk in all: 1.50, 1.50") == 2
    assert "## frappe within 0.0005" in said and "| 1/8 | 0.0010 +- 0.0000 | 0.0015 +- 0.0064 |" in said
    assert "## frappe within 0.002" in said and "| 1/8 | 0.0040 +- 0.0000 | 0.0060 +- 0.0254 |" in said
