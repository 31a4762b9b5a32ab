"""Every method from the raw log to the served model: its file and its predictions are those trained."""

from pathlib import Path

import pytest
import torch
from exported_model import MODEL, config_for, exported, write_trained
from methods.settings import methods
from methods.test_contract import serving
from torch import Tensor

from autoembed.data.batch import Bag, Batch
from autoembed.export.artifact import verify_artifact
from autoembed.methods.base import Method
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, plan_bytes
from autoembed.runtime import load
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, train

TRAINING = TrainingConfig(batch_size=256, epochs=1, learning_rate=0.02)


def drawn(rows: list[int], bags: tuple[int, ...], examples: int = 300) -> Batch:
    """Random ids of all fields; several bags, by turns sums and means, with weights or without."""
    generator = torch.Generator().manual_seed(len(bags))
    ids = torch.stack([torch.randint(count, (examples,), generator=generator) for count in rows], 1)
    held = {}
    for field in bags:
        ids[:, field] = 0
        offsets = torch.nn.functional.pad(
            torch.randint(4, (examples,), generator=generator).cumsum(0), (1, 0)
        )
        values = torch.randint(rows[field], (int(offsets[-1]),), generator=generator)
        weights = torch.rand(len(values), generator=generator) if field % 3 == 0 else None
        held[field] = Bag(values, offsets, ("sum", "mean")[field % 2], weights)
    return Batch(torch.zeros(examples), torch.zeros(examples, 0), ids, held)


def decoded(table: PackedTable, example: Batch) -> Tensor:
    """What every field and example reads, field by field from all of its rows."""
    vectors = []
    for field in range(len(table.plan.fields)):
        rows, bag = table.decode(field), example.bags.get(field)
        if bag is None:
            vectors.append(rows[example.ids[:, field]])
            continue
        owners = torch.arange(len(example)).repeat_interleave(bag.lengths)
        read = rows[bag.values] * bag.shares().unsqueeze(1)
        vectors.append(rows.new_zeros(len(example), rows.shape[1]).index_add(0, owners, read))
    return torch.stack(vectors, 1)


@pytest.mark.parametrize("method", methods(), ids=str)
def test_the_exported_model_is_the_trained_one(method: Method, tmp_path: Path) -> None:
    data = exported().data
    profile = PROFILES[serving(method)]
    trained = train(data, stats_of(data), method, profile, MODEL, TRAINING, seed=2, device="cpu")
    write_trained(tmp_path / "model", trained, MODEL, data)
    size = (tmp_path / "model" / "tables.safetensors").stat().st_size
    assert size == trained.bytes.total == plan_bytes(trained.packed.plan).total
    table = PackedTable(trained.packed)
    for bags in ((), (1, 3, 4), tuple(range(len(trained.packed.plan.fields)))):
        example = drawn([field.rows for field in trained.packed.plan.fields], bags)
        with torch.no_grad():
            torch.testing.assert_close(table(example), decoded(table, example), rtol=1e-5, atol=1e-5)
    verify_artifact(tmp_path / "model")
    served = load(tmp_path / "model").evaluate_log(config_for(exported().folder / "log.parquet"), "test")
    assert served.auc == pytest.approx(trained.test.auc, abs=1e-4)
    assert served.logloss == pytest.approx(trained.test.logloss, abs=1e-5)
