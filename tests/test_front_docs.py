"""The examples of docs/front.md run as they stand, on a small made-up run folder."""

import re
from pathlib import Path

import pytest

from autoembed.record import TrialRecord, write_record

PAGE = Path(__file__).parents[1] / "docs" / "front.md"


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """runs/frappe below an empty working directory, with the records of four candidates, two seeds each."""
    candidates = [
        ("full_precision", 400_000, 0.980),
        ("a", 12_000, 0.970),
        ("b", 50_000, 0.979),
        ("c", 90_000, 0.9795),
    ]
    for number in range(8):
        candidate, total, auc = candidates[number // 2]
        record = TrialRecord(
            number=number,
            candidate=candidate,
            method=candidate,
            parameters={},
            seed=number % 2,
            role="repeat" if number % 2 else "search" if number else "reference",
            state="complete",
            bytes={"payload": total - 500, "scales": 100, "index": 400, "total": total},
            valid_auc=auc + number / 1e5,
            valid_logloss=0.15,
            test_auc=auc - number / 1e5,
            test_logloss=0.15,
            seconds=20.0,
        )
        folder = tmp_path / "runs" / "frappe" / "trials" / f"{number:04d}"
        folder.mkdir(parents=True)
        write_record(record, folder / "record.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_example_of_the_page_runs(run_folder, capsys):
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(examples) == 4
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, str(PAGE), "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["a", "12000"], ["b", "50000"], ["c", "90000"], ["full_precision", "400000"],
    ]  # fmt: skip
    assert lines[4].endswith("export trial 5")
    assert {path.name for path in run_folder.glob("front.*")} == {"front.json", "front.csv", "front.png"}
