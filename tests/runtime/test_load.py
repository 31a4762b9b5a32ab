import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from exported_model import MODEL, config_for, exported
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import autoembed
from autoembed.data.batch import Batch
from autoembed.data.vocabulary import Vocabulary
from autoembed.directory import plan_json
from autoembed.evaluate import predict
from autoembed.packed import PackedTable
from autoembed.runtime import ArtifactError, load
from autoembed.runtime.manifest import (
    FILES,
    MANIFEST,
    NETWORK,
    TABLES,
    VOCABULARY,
    describe_files,
    manifest_bytes,
)
from autoembed.vocabulary_file import write_vocabularies

ALL_FILES = (MANIFEST, *FILES)


def test_batches() -> list[Batch]:
    return list(exported().data.batches("test", 64))


test_batches.__test__ = False  # type: ignore[attr-defined]


def raw_split(name: str) -> dict[str, pa.ChunkedArray]:
    log = exported().log.filter(pc.equal(exported().log["part"], name))
    return {column: log[column] for column in log.column_names}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the artifact that a test may damage."""
    return Path(shutil.copytree(exported().artifact, tmp_path / "model"))


def test_a_loaded_model_predicts_what_the_trained_candidate_predicts() -> None:
    trained = exported().trained
    table = PackedTable(trained.packed)
    expected = predict(trained.network, table, test_batches(), torch.device("cpu"))
    model = load(exported().artifact)
    assert np.array_equal(model.logits(test_batches()), expected)
    probabilities = model.predict(test_batches()[0])
    assert torch.equal(probabilities, torch.from_numpy(expected[:64]).sigmoid())


def test_another_process_predicts_the_same_from_the_files_alone(tmp_path: Path) -> None:
    model = load(exported().artifact)
    expected = model.predict_raw(raw_split("test"))
    pq.write_table(pa.table(raw_split("test")), tmp_path / "test.parquet")
    program = f"""
import json, sys
import pyarrow.parquet, torch
torch.set_num_threads(1)
torch.load = None
from autoembed.runtime import load
table = pyarrow.parquet.read_table({str(tmp_path / "test.parquet")!r})
model = load({str(exported().artifact)!r})
columns = {{name: table[name] for name in table.column_names}}
metrics = model.evaluate_raw([columns])
kept_out = ("training", "search", "methods", "export", "tables", "space", "schedule")
outside = [m for m in sys.modules if m.split(".")[:1] == ["optuna"] or m.split(".")[1:2] in
           [[name] for name in kept_out] and m.startswith("autoembed.")]
print(json.dumps([model.predict_raw(columns).tolist(), metrics.auc, metrics.logloss, outside]))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    predictions, auc, logloss, outside = json.loads(run.stdout)
    # one thread there, maybe several here: sums may round in another order
    torch.testing.assert_close(torch.tensor(predictions), expected, rtol=0, atol=1e-6)
    trained = exported().trained.test
    assert (auc, logloss) == pytest.approx((trained.auc, trained.logloss), abs=1e-6)
    assert outside == []  # neither training nor search is needed, nor imported


def test_evaluation_reproduces_the_metrics_of_training_from_prepared_and_from_raw_data() -> None:
    trained = exported().trained
    model = load(exported().artifact)
    assert model.evaluate(exported().data) == trained.test
    assert model.evaluate(exported().data, "valid") == trained.valid
    pieces = [
        {name: column.slice(start, 77) for name, column in raw_split("test").items()}
        for start in range(0, 300, 77)
    ]
    raw = model.evaluate_raw(pieces)
    # products of matrices round otherwise in pieces of another size
    assert (raw.auc, raw.logloss) == pytest.approx((trained.test.auc, trained.test.logloss), abs=1e-6)
    assert model.manifest["metrics"]["test"] == {"auc": trained.test.auc, "logloss": trained.test.logloss}


def test_data_with_other_ranks_is_refused() -> None:
    model = load(exported().artifact)
    other = type(exported().data)(
        exported().data.path, {**exported().data.manifest, "fingerprint": "other"}, 0
    )
    with pytest.raises(ValueError, match="evaluate_raw"):
        model.evaluate(other)


def test_pruned_ids_take_no_vocabulary_and_read_row_0() -> None:
    model, data = load(exported().artifact), exported().data
    described = model.manifest["bytes"]
    assert described["vocabulary"] == sum(field.vocabulary.nbytes for field in model.fields)
    assert described["vocabulary_unpruned"] == sum(data.vocabulary(f).nbytes for f in range(5))
    assert described["vocabulary"] < described["vocabulary_unpruned"]
    rows, kept = data.fields[0].rows, model.plan.kept_rows[0]
    assert kept < rows
    ids = data.vocabulary(0).values.to_pylist()
    assert model.fields[0].vocabulary.lookup(ids).tolist() == [*range(1, kept), *[0] * (rows - kept)]


@given(st.sampled_from(ALL_FILES), st.data())
@settings(deadline=None, max_examples=50)
def test_every_altered_byte_is_refused(name: str, data: st.DataObject) -> None:
    copy = exported().folder / "altered"
    if not copy.exists():
        shutil.copytree(exported().artifact, copy)
    whole = (copy / name).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[at] ^= data.draw(st.integers(1, 255))
    try:
        (copy / name).write_bytes(altered)
        with pytest.raises(ArtifactError, match=r"manifest\.json" if name == MANIFEST else name):
            load(copy)
    finally:
        (copy / name).write_bytes(whole)
    load(copy)


@given(st.sampled_from(ALL_FILES), st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_every_shortened_file_is_refused(name: str, share: float) -> None:
    copy = exported().folder / "shortened"
    if not copy.exists():
        shutil.copytree(exported().artifact, copy)
    whole = (copy / name).read_bytes()
    try:
        (copy / name).write_bytes(whole[: int(share * (len(whole) - 1))])
        with pytest.raises(ArtifactError, match=name):
            load(copy)
    finally:
        (copy / name).write_bytes(whole)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_named_with_what_to_do(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name}.*(copy the folder|export the model) again"):
        load(copy)


def rewritten(copy: Path, **changes: object) -> None:
    """The manifest with other content and a checksum that fits it."""
    content = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_bytes(manifest_bytes({**content, **changes}))


def test_another_format_version_is_refused(copy: Path) -> None:
    rewritten(copy, version=2)
    with pytest.raises(ArtifactError, match="version 2, this program reads 1"):
        load(copy)


def test_a_folder_that_is_no_artifact_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no exported model here"):
        load(tmp_path)
    rewritten(copy, format="something else")
    with pytest.raises(ArtifactError, match="not the manifest of an exported model"):
        load(copy)


def test_an_id_outside_its_field_is_refused_in_place_of_another_fields_row() -> None:
    model, batch = load(exported().artifact), test_batches()[0]
    expected = model.predict(batch)
    for field, bag in ((0, False), (1, False), (4, False), (2, True), (3, True)):
        name, rows = model.plan.fields[field].name, model.plan.fields[field].rows
        for wrong in (-1, rows, 2**62, -(2**63)):
            ids, bags = batch.ids.clone(), dict(batch.bags)
            if bag:
                values = bags[field].values.clone()
                values[-1] = wrong
                bags[field] = replace(bags[field], values=values)
            else:
                ids[5, field] = wrong
            message = f"field '{name}': id {wrong} is out of range, the field has {rows} rows"
            with pytest.raises(IndexError, match=message):
                model.predict(replace(batch, ids=ids, bags=bags))
            with pytest.raises(IndexError, match=message):
                model.logits([batch, replace(batch, ids=ids, bags=bags)])
    # the last row of a field is one, and what stands in the column of a bag is not read
    ids = batch.ids.clone()
    ids[:, 2] = -1
    assert torch.equal(model.predict(replace(batch, ids=ids)), expected)
    model.predict(replace(batch, ids=ids.index_fill(1, torch.tensor([0]), model.plan.fields[0].rows - 1)))
    with pytest.raises(ValueError, match="the batch has 1 fields, the model reads 5"):
        model.predict(replace(batch, ids=batch.ids[:, :1], bags={}))


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000])
def test_a_manifest_nested_without_end_is_refused(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match="it is no JSON"):
        load(copy)


def test_a_manifest_without_a_label_is_refused(copy: Path) -> None:
    data = json.loads((copy / MANIFEST).read_text())["data"]
    del data["label"]
    rewritten(copy, data=data)
    with pytest.raises(ArtifactError, match="export the model again: no 'label'"):
        load(copy)


def test_a_plan_whose_fields_have_several_dimensions_is_refused(copy: Path) -> None:
    plan = exported().trained.packed.plan
    wider = replace(plan, fields=(replace(plan.fields[0], dim=7), *plan.fields[1:]))
    replace(exported().trained.packed, plan=wider).save(copy / TABLES)
    rewritten(copy, plan=plan_json(wider), files=describe_files(copy))
    with pytest.raises(ArtifactError, match=r"one output dimension, this plan has \[6, 7\]"):
        load(copy)


def test_a_model_larger_than_its_network_file_is_refused_without_memory_for_it(copy: Path) -> None:
    model = json.loads((copy / MANIFEST).read_text())["model"]
    rewritten(copy, model={**model, "hidden": [65536, 65536]})  # 17 GB
    with pytest.raises(ArtifactError, match="not those of model 'dlrm'"):
        load(copy)


def test_a_vocabulary_with_a_repeated_id_is_told_at_the_first_prediction(copy: Path) -> None:
    model = load(copy)
    users = model.fields[0].vocabulary.values.to_pylist()
    users[-1] = users[0]
    vocabularies = [field.vocabulary for field in model.fields]
    vocabularies[0] = Vocabulary("strings", pa.array(users, pa.large_string()))
    write_vocabularies(copy / VOCABULARY, vocabularies)
    rewritten(copy, files=describe_files(copy))
    with pytest.raises(ArtifactError, match=r"field 'user': the vocabulary holds the id .* twice; export"):
        load(copy).predict_raw(raw_split("test"))
    with pytest.raises(ArtifactError, match=r"field 'user': the vocabulary holds the id .* twice; export"):
        load(copy).evaluate_log(config_for(exported().folder / "log.parquet"))


def test_files_that_do_not_belong_together_are_refused(copy: Path) -> None:
    content = json.loads((copy / MANIFEST).read_text())
    plan = content["plan"]
    plan["fields"][0]["segments"][0]["precision"] = "int3"
    rewritten(copy, plan=plan)
    with pytest.raises(ArtifactError, match="its plan is not the one"):
        load(copy)
    rewritten(
        copy,
        plan=json.loads((exported().artifact / MANIFEST).read_text())["plan"],
        model={**content["model"], "hidden": [8]},
    )
    with pytest.raises(ArtifactError, match="not those of model 'dlrm'"):
        load(copy)


@pytest.mark.parametrize("key", ["files", "plan", "data", "model"])
def test_a_manifest_that_lacks_parts_is_refused_even_with_a_fitting_checksum(copy: Path, key: str) -> None:
    rewritten(copy, **{key: {}})
    with pytest.raises(ArtifactError, match="export the model again"):
        load(copy)


def test_a_network_with_another_tensor_is_refused_even_with_a_fitting_checksum(copy: Path) -> None:
    state = load_file(copy / NETWORK)
    save_file({**state, "extra": torch.zeros(1)}, copy / NETWORK, metadata={"format": "autoembed-network 1"})
    rewritten(copy, files=describe_files(copy))
    with pytest.raises(ArtifactError, match=f"model {MODEL.name!r}"):
        load(copy)


def test_nothing_is_ever_unpickled() -> None:
    root = Path(autoembed.__file__).parent
    readers = [
        *root.glob("export/*.py"),
        *root.glob("runtime/*.py"),
        *root.glob("*_file.py"),
        root / "packed.py",
    ]
    assert len(readers) > 8
    for path in readers:
        text = path.read_text()
        assert "pickle" not in text and "torch.load" not in text, path
