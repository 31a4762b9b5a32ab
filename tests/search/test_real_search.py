"""The search with real trainings, on a few hundred clicks."""

from dataclasses import replace
from pathlib import Path

from search_study import make_study

from autoembed.data.prepared import open_prepared
from autoembed.export.candidate import load_candidate
from autoembed.plan import plan_bytes
from autoembed.record import TrialRecord
from autoembed.search.driver import run_study
from autoembed.search.folder import RunFolder
from autoembed.search.inputs import data_folder


def timeless(record: TrialRecord) -> TrialRecord:
    return replace(record, seconds=0.0, cost_seconds=0.0, fte=None)


def test_a_search_finds_and_keeps_models_and_repeats_itself(clicks: Path, tmp_path: Path) -> None:
    config = make_study(clicks, trials=2, seeds=2, budgets=["1/1.5", "1/3"])
    first = run_study(config, tmp_path / "first")
    again = run_study(config.model_copy(update={"trials": 1, "seeds": 1}), tmp_path / "again")
    assert [timeless(record) for record in again] == [timeless(record) for record in first[: len(again)]]

    complete = [record for record in first if record.state == "complete"]
    assert {record.role for record in complete} == {"reference", "baseline", "search", "repeat"}
    reference = complete[0]
    assert reference.valid_auc is not None and reference.valid_auc > 0.6
    assert reference.fte == 1.0
    data = open_prepared(data_folder(config, tmp_path / "first"))
    for record in complete:
        folder = RunFolder(tmp_path / "first").trial(record.number)
        packed, _ = load_candidate(folder, config.model, data, record.checksums)
        assert plan_bytes(packed.plan).total == record.total_bytes
        assert (folder / "tables.safetensors").stat().st_size == record.total_bytes
        assert record.test_auc is not None and record.vocabulary_bytes > 0
        assert (folder / "history.json").exists()
