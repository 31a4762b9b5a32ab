"""What fine-tuning reads of the train split."""

import torch
from tiny_data import tiny_data

from autoembed.joint.fine_tune import fine_tune
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.uniform import Uniform
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.training import TrainingConfig, trained_run


def test_batch_normalisation_trains_on_no_batch_of_one_row() -> None:
    training = TrainingConfig(batch_size=64, epochs=1)
    model = ModelConfig(name="dnn", dim=8, hidden=(16,), batch_norm=True)
    data, stats = tiny_data(rows=2 * 64 + 1)
    run = trained_run(data, stats, Uniform(4), PROFILES["packed"], model, training, 0, "cpu")
    assert isinstance(run.table, FixedPlanTable)
    seen: list[int] = []
    run.network.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    seeds, cpu = torch.Generator().manual_seed(1), torch.device("cpu")
    fine_tune(data, run.table, run.network, training, 5, seeds, cpu, dropout=False, step_rate=0.01)
    assert seen == [64] * 5
