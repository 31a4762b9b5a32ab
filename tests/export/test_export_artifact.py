import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from exported_model import MODEL, exported

from autoembed.config import ConfigError
from autoembed.data.config import DataConfig, RandomSplit, Split
from autoembed.data.prepare import prepare
from autoembed.data.prepared import open_prepared
from autoembed.export.artifact import Reference, verify_artifact, write_artifact
from autoembed.packed import PackedTable
from autoembed.plan import FieldPlan, Plan, plan_bytes
from autoembed.runtime import ArtifactError
from autoembed.runtime.manifest import FILES, MANIFEST, TABLES


def write(out: Path, **changes: Any) -> dict[str, Any]:
    trained = exported().trained
    content = {
        "packed": trained.packed,
        "network": trained.network,
        "model": MODEL,
        "data": exported().data,
        "metrics": {"test": {"auc": trained.test.auc, "logloss": trained.test.logloss}},
        "provenance": {"seed": 5},
    }
    return write_artifact(out, **{**content, **changes})


def test_the_same_model_is_always_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    for name in (*FILES, MANIFEST):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]  # nothing partial is left


def test_the_tables_file_has_the_bytes_of_the_byte_model(tmp_path: Path) -> None:
    manifest = write(tmp_path / "model")
    expected = plan_bytes(exported().trained.packed.plan)
    assert (tmp_path / "model" / TABLES).stat().st_size == expected.total
    split = manifest["bytes"]["tables"]
    assert split["total"] == expected.total == sum(size for name, size in split.items() if name != "total")
    assert json.loads((tmp_path / "model" / MANIFEST).read_text()) == manifest


def test_what_was_written_predicts_as_the_trained_candidate() -> None:
    trained, data = exported().trained, exported().data
    reference = Reference(trained.network, PackedTable(trained.packed))
    verified = verify_artifact(exported().artifact, against=reference, batches=data.batches("test", 50))
    assert verified.examples == data.rows("test")
    assert verified.largest_difference == 0.0
    assert verified.table_bytes == plan_bytes(trained.packed.plan).total
    assert verify_artifact(exported().artifact).largest_difference is None


class Moved(torch.nn.Module):
    def __init__(self, table: torch.nn.Module, by: float) -> None:
        super().__init__()
        self.table, self.by = table, by

    def forward(self, batch: Any) -> torch.Tensor:
        vectors: torch.Tensor = self.table(batch)
        return vectors + self.by


@pytest.mark.parametrize("by", [0.05, float("nan")])
def test_predictions_that_differ_from_the_candidate_are_refused(by: float) -> None:
    trained = exported().trained
    reference = Reference(trained.network, Moved(PackedTable(trained.packed), by))
    with pytest.raises(ArtifactError, match="predictions differ"):
        verify_artifact(exported().artifact, against=reference, batches=exported().data.batches("test", 100))


def test_a_model_is_replaced_only_when_asked(tmp_path: Path) -> None:
    write(tmp_path / "model", provenance={"seed": 1})
    with pytest.raises(ValueError, match="exists; choose another place or allow overwriting"):
        write(tmp_path / "model", provenance={"seed": 2})
    assert write(tmp_path / "model", provenance={"seed": 2}, overwrite=True)["provenance"] == {"seed": 2}


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ValueError, match="is no exported model"):
        write(tmp_path, overwrite=True)
    assert (tmp_path / "holiday.jpg").exists()


def test_prepared_data_is_never_replaced_by_a_model_nor_a_model_by_prepared_data(tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    shutil.copytree(exported().data.path, prepared)
    with pytest.raises(ValueError, match="is no exported model"):
        write(prepared, overwrite=True)
    open_prepared(prepared)
    write(tmp_path / "model")
    log = tmp_path / "log.csv"
    log.write_text("label,word\n1,a\n0,b\n")
    config = DataConfig(path=str(log), categorical=("word",), split=Split(random=RandomSplit()))
    with pytest.raises(ConfigError, match="is no prepared data"):
        prepare(config, tmp_path / "model", overwrite=True)
    verify_artifact(tmp_path / "model")


def test_a_failed_export_leaves_the_old_model_and_nothing_else(tmp_path: Path) -> None:
    before = write(tmp_path / "model")
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path / "model", overwrite=True, metrics={"test": {"auc": float("nan")}})
    assert json.loads((tmp_path / "model" / MANIFEST).read_text()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_tables_of_other_data_are_refused(tmp_path: Path) -> None:
    packed = exported().trained.packed
    first = packed.plan.fields[0]
    renamed = FieldPlan("someone", first.rows, first.dim, first.segments)
    other = type(packed)(
        Plan(packed.plan.profile, (renamed, *packed.plan.fields[1:])),
        packed.payload,
        packed.scales,
        packed.offsets,
        packed.projections,
        packed.segment_index,
    )
    with pytest.raises(ValueError, match=r"not made for this data.*someone"):
        write(tmp_path / "model", packed=other)
    assert not (tmp_path / "model").exists()
