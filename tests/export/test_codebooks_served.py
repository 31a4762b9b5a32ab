"""A plan with codebooks, bags among its fields, from the raw log to the served model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exported_model import MODEL, config_for, exported, write_trained

from autoembed.evaluate import evaluate
from autoembed.export.artifact import verify_artifact
from autoembed.joint.table import Weights, table_under
from autoembed.joint.trunk import train_trunk
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Fields, fields_bytes, stored_segment, uniform_fields
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Segment, Sharing
from autoembed.runtime import load
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig
from autoembed_kernels.row_update import RowOptimizer


def coded_fields(spec: TableSpec) -> Fields:
    """Of every field, single ids and bags: two rows of their own, then codebooks of 4 rows in 8 bits."""
    fields = []
    for number, field in enumerate(spec.stats.fields):
        head = min(2, field.rows)
        segments = [stored_segment(0, head, spec.dim, 8, 2 * number)]
        if field.rows > head:
            stored = min(4, field.rows - head)
            step = 2 * number + 1
            segments.append(Segment(head, field.rows, Sharing.CODEBOOK, stored, spec.dim, "int8", scale=step))
        fields.append(FieldPlan(field.name, field.rows, spec.dim, tuple(segments)))
    return tuple(fields)


def test_a_model_with_codebooks_is_served_as_it_was_measured(tmp_path: Path) -> None:
    data = exported().data
    stats = stats_of(data)
    training = TrainingConfig(batch_size=128, epochs=2, learning_rate=0.01)
    trunk = train_trunk(data, stats, MODEL, training, seed=0, device="cpu")
    spec = TableSpec(stats, MODEL.dim, PROFILES["packed"])
    fields = coded_fields(spec)
    generator = torch.Generator().manual_seed(1)
    codes = {
        (number, s.start): torch.randint(0, s.stored_rows, (s.rows,), generator=generator).byte()
        for number, field in enumerate(fields)
        for s in field.segments
        if s.sharing is Sharing.CODEBOOK
    }
    assert len(codes) >= 4
    packed = table_under(spec, fields, Weights(trunk.rows), RowOptimizer("adam"), codes).pack()
    table = PackedTable(packed, stats.first_rows)
    batches, labels = data.batches("test", 256), data.labels("test")
    measured = evaluate(trunk.network, table, batches, labels, torch.device("cpu"))

    made = replace(exported().trained, packed=packed, network=trunk.network, test=measured)
    write_trained(tmp_path / "model", made, MODEL, data)
    size = (tmp_path / "model" / "tables.safetensors").stat().st_size
    assert size == packed.bytes.total == fields_bytes(spec, fields)
    assert size < fields_bytes(spec, uniform_fields(spec, 32)) / 3
    verify_artifact(tmp_path / "model")
    served = load(tmp_path / "model").evaluate_log(config_for(exported().folder / "log.parquet"), "test")
    assert served.auc == pytest.approx(measured.auc, abs=1e-4)
    assert served.logloss == pytest.approx(measured.logloss, abs=1e-5)
