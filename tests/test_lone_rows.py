"""Batch normalisation under batches of one row: left out where they are the last, refused where all are."""

import pytest
import torch
from tiny_data import tiny_data

from autoembed.config import ConfigError
from autoembed.lone_rows import trained_rows, without_lone_row
from autoembed.methods.full_precision import FullPrecision
from autoembed.models import ModelConfig, build_network
from autoembed.plan import PROFILES
from autoembed.training import Progress, Trained, TrainingConfig, train

MODEL = ModelConfig(name="dnn", dim=8, hidden=(16,), batch_norm=True)
PLAIN = ModelConfig(name="dnn", dim=8, hidden=(16,))
QUICK = TrainingConfig(batch_size=256, learning_rate=5e-3, epochs=2)


pytestmark = pytest.mark.usefixtures("one_thread")


def _train(rows: int, model: ModelConfig, batch_size: int = 256) -> tuple[Trained, list[Progress]]:
    data, stats = tiny_data(rows=rows)
    seen: list[Progress] = []
    training = QUICK.model_copy(update={"batch_size": batch_size})
    given = (data, stats, FullPrecision(), PROFILES["packed"], model, training)
    return train(*given, seed=0, device="cpu", progress=seen.append), seen


def test_a_last_batch_of_one_row_is_left_out_of_every_count() -> None:
    trained, seen = _train(2 * 256 + 1, MODEL)
    assert (trained.ledger.steps, trained.ledger.samples) == (4, 4 * 256)
    assert {progress.steps_per_epoch for progress in seen} == {2}
    assert seen[-1].step == 4


def test_other_batches_and_networks_train_on_every_row() -> None:
    for rows, model in ((2 * 256 + 2, MODEL), (2 * 256 + 1, PLAIN)):
        trained, seen = _train(rows, model)
        assert (trained.ledger.steps, trained.ledger.samples) == (6, 2 * rows)
        assert seen[-1].steps_per_epoch == 3


@pytest.mark.parametrize("rows", [5, 6, 7, 8, 9])
def test_the_rows_of_an_epoch_are_those_of_its_batches(rows: int) -> None:
    data, _ = tiny_data(rows=rows)
    for model in (MODEL, PLAIN):
        network = build_network(model, 3, 2, torch.Generator().manual_seed(0))
        batches = list(without_lone_row(data.batches("train", 4, shuffle_seed=1), network))
        assert sum(len(batch) for batch in batches) == trained_rows(rows, 4, network)


def test_batches_that_are_all_of_one_row_are_refused_by_key() -> None:
    with pytest.raises(
        ConfigError, match=r"'training\.batch_size' and 'model\.batch_norm'.* raise batch_size"
    ):
        _train(64, MODEL, batch_size=1)
    with pytest.raises(ConfigError, match=r"'model\.batch_norm': the train split has one row"):
        _train(1, MODEL)
    assert _train(4, PLAIN, batch_size=1)[0].ledger.steps == 8
