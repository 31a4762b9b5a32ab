"""Quantization-aware fine-tuning of one budget's table for a given number of steps."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.joint.config import JointConfig
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.training_config import TrainingConfig
from autoembed.training_loop import Diverged, Examples, draw_seed


def tuning_settings(trunk: TrainingConfig, config: JointConfig) -> TrainingConfig:
    """The trunk's settings with the rates and penalties of fine-tuning."""
    table_rate = trunk.table_learning_rate
    return trunk.model_copy(
        update={
            "learning_rate": trunk.learning_rate * config.rate,
            "table_learning_rate": table_rate and table_rate * config.rate,
            "scale_learning_rate": trunk.scale_learning_rate * config.rate,
            "l2_rows": trunk.l2_rows * config.l2,
        }
    )


def fine_tune(
    data: Examples,
    table: FixedPlanTable,
    network: nn.Module,
    training: TrainingConfig,
    steps: int,
    seeds: torch.Generator,
    device: torch.device,
    *,
    dropout: bool,
) -> None:
    """Train table and network in place for `steps` steps under fresh optimizers.

    Labels may be soft. Rates fall from those of `training` to zero, linearly. The order of rows comes from
    `seeds`, dropout from torch's global generator. Raises Diverged where a loss is not finite.
    """
    optimizers = training.dense_optimizers(network, table)
    rates = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    row_rate = training.table_learning_rate or training.learning_rate
    network.train()
    table.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.eval()
    done = 0
    while done < steps:
        for batch in data.batches("train", training.batch_size, shuffle_seed=draw_seed(seeds)):
            left = 1.0 - done / steps
            for group, rate in rates:
                group["lr"] = rate * left
            batch = batch.to(device)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss = binary_cross_entropy_with_logits(network(batch.dense, table(batch)), batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            table.update(row_rate * left)
            done += 1
            if done == steps:
                break
    # one look at the end: reading every loss back would wait for a GPU, and NaN never heals
    if not bool(loss.detach().isfinite()):
        raise Diverged(f"the fine-tuning loss is {float(loss)} after {steps} steps; lower joint.rate")
