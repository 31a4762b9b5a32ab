"""A model whose rows stand in an order of its own, exported: prepared data and raw columns read the same."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from exported_model import MODEL, config_for, raw_log
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.data.batch import Batch
from autoembed.data.config import Categorical
from autoembed.data.hashed_ids import HashedIds
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData
from autoembed.data.row_order import RowOrder
from autoembed.evaluate import EVALUATION_BATCH
from autoembed.export.artifact import write_artifact
from autoembed.joint.table import Weights, table_under
from autoembed.lookup import look_up
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import stored_segment
from autoembed.metrics import measure
from autoembed.models import build_network
from autoembed.packed import Packed, PackedTable
from autoembed.plan import PROFILES, FieldPlan, Segment, Sharing
from autoembed.runtime import Artifact, load
from autoembed.stats import stats_of
from autoembed_kernels.row_update import RowOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")

HASHED = 1
NETWORK = build_network(MODEL, 5, 3, torch.Generator().manual_seed(1)).eval()


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return raw_log(600)


@pytest.fixture(scope="module")
def data(log: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Fields of text, of hashed numbers, two bags, and buckets of numbers."""
    folder = tmp_path_factory.mktemp("reordered")
    pq.write_table(log, folder / "log.parquet")
    config = config_for(folder / "log.parquet")
    assert isinstance(config.categorical, dict)
    categorical = {**config.categorical, "item": Categorical(hash_rows=40)}
    return prepare(config.model_copy(update={"categorical": categorical}), folder / "prepared")


def some_order(data: PreparedData, seed: int) -> RowOrder:
    random = np.random.default_rng(seed)
    rows = [np.append(0, 1 + random.permutation(field.rows - 1)) for field in data.fields]
    rows[HASHED] = np.arange(data.fields[HASHED].rows)
    return RowOrder(tuple(part.astype(np.int32) for part in rows))


def exported(data: PreparedData, order: RowOrder | None, kept: float, out: Path) -> tuple[Packed, Artifact]:
    """Random rows; ids behind a share of each field's rows are pruned, but for those of the hashed field."""
    after = data if order is None else data.reordered(order)
    spec = TableSpec(stats_of(after), MODEL.dim, PROFILES["packed"])
    fields = []
    for number, field in enumerate(after.fields):
        stop = field.rows if number == HASHED else max(1, round(kept * field.rows))
        pruned = [Segment(stop, field.rows, Sharing.OOV)] if stop < field.rows else []
        own = stored_segment(0, stop, spec.dim, 32, number)
        fields.append(FieldPlan(field.name, field.rows, spec.dim, (own, *pruned)))
    rows = torch.randn(spec.stats.rows, spec.dim, generator=torch.Generator().manual_seed(2))
    packed = table_under(spec, tuple(fields), Weights(rows), RowOptimizer("adam")).pack()
    about = {"model": MODEL, "data": after, "metrics": {}, "provenance": {}}
    write_artifact(out, packed=packed, network=NETWORK, **about)  # type: ignore[arg-type]
    return packed, load(out)


def slow_logits(data: PreparedData, order: RowOrder, packed: Packed, batches: list[Batch]) -> np.ndarray:
    """What the batches of data by frequency read of a table by frequency, row 0 where an id is pruned."""
    table = PackedTable(packed)
    rows = []
    for field, placed in enumerate(order.rows):
        decoded = table.decode(field)
        back = torch.empty_like(decoded)
        back[torch.from_numpy(placed).long()] = decoded
        rows.append(back)
    first = torch.tensor([0, *(field.rows for field in data.fields)]).cumsum(0)[:-1]
    found = []
    for batch in batches:
        lookup = look_up(batch, first)
        found.append(NETWORK(batch.dense, lookup.pool(torch.cat(rows)[lookup.rows])))
    return torch.cat(found).detach().numpy()


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000), st.floats(0, 1) | st.just(1.0), st.sampled_from(["valid", "test"]))
def test_prepared_and_raw_data_are_evaluated_as_a_table_by_frequency_would_be(
    data: PreparedData, log: pa.Table, seed: int, kept: float, split: str
) -> None:
    order = some_order(data, seed)
    with tempfile.TemporaryDirectory() as folder:
        packed, model = exported(data, order, kept, Path(folder) / "model")
    expected = measure(
        data.labels(split),
        slow_logits(data, order, packed, list(data.batches(split, EVALUATION_BATCH))),
    )
    part = log.filter(pc.equal(log["part"], split))
    found = [
        model.evaluate(data, split),
        model.evaluate(data.reordered(order), split),
        model.evaluate_raw([{name: part[name] for name in part.column_names}]),
    ]
    for measured in found:
        # sums over bags and products of matrices may round in another order
        assert (measured.auc, measured.logloss) == pytest.approx((expected.auc, expected.logloss), abs=1e-6)


@pytest.fixture
def export(data: PreparedData, tmp_path: Path) -> Callable[[RowOrder | None], Artifact]:
    return lambda order: exported(data, order, 0.7, tmp_path / "model")[1]


def test_data_of_another_fingerprint_or_order_is_refused(
    data: PreparedData, export: Callable[[RowOrder | None], Artifact]
) -> None:
    order = some_order(data, 1)
    model = export(order)
    other = PreparedData(data.path, {**data.manifest, "fingerprint": "other"}, 0)
    for refused in (other, other.reordered(order), data.reordered(some_order(data, 2))):
        message = f"has fingerprint {refused.fingerprint}, this model was trained on {data.fingerprint}"
        with pytest.raises(ValueError, match=f"{message}: .*raw columns"):
            model.evaluate(refused)
    assert model.evaluate(data) == model.evaluate(data.reordered(order))


def test_a_model_by_frequency_refuses_reordered_data(
    data: PreparedData, export: Callable[[RowOrder | None], Artifact]
) -> None:
    model = export(None)
    model.evaluate(data)
    with pytest.raises(ValueError, match=f"this model was trained on {data.fingerprint}: rows stand for"):
        model.evaluate(data.reordered(some_order(data, 1)))


def test_the_manifest_tells_both_fingerprints_and_the_vocabulary_takes_no_other_bytes(
    data: PreparedData, tmp_path: Path
) -> None:
    order = some_order(data, 1)
    _, ordered = exported(data, order, 1.0, tmp_path / "ordered")
    _, plain = exported(data, None, 1.0, tmp_path / "plain")
    about, without = ordered.manifest["data"], plain.manifest["data"]
    assert about.pop("fingerprint") == data.reordered(order).fingerprint
    assert about.pop("prepared_fingerprint") == data.fingerprint == without.pop("fingerprint")
    assert about == without
    assert ordered.manifest["bytes"] == plain.manifest["bytes"]
    for rows, ours, theirs in zip(order.rows, ordered.fields, plain.fields, strict=True):
        if isinstance(ours.vocabulary, HashedIds) or isinstance(theirs.vocabulary, HashedIds):
            assert ours == theirs
            continue
        known = theirs.vocabulary.values.to_pylist()
        assert ours.vocabulary.values.to_pylist() == [known[row - 1] for row in rows[1:]]
