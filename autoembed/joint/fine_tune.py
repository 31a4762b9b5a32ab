"""Quantization-aware fine-tuning of one budget's table for a given number of steps."""

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.joint.config import JointConfig
from autoembed.lone_rows import without_lone_row
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.training_config import TrainingConfig
from autoembed.training_loop import Diverged, Examples, draw_seed


def tuning_settings(trunk: TrainingConfig, config: JointConfig, rate: float) -> TrainingConfig:
    """The trunk's settings with learning rates `rate` times its own, and the penalties of fine-tuning."""
    table_rate = trunk.table_learning_rate
    return trunk.model_copy(
        update={
            "learning_rate": trunk.learning_rate * rate,
            "table_learning_rate": table_rate and table_rate * rate,
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
    step_rate: float,
) -> None:
    """Train table and network in place for `steps` steps under fresh optimizers.

    Labels may be soft. Rates fall from those of `training` to zero, linearly; learned steps move by
    `step_rate` of themselves at most. The order of rows comes from
    `seeds`, dropout from torch's global generator. Raises Diverged where a loss is not finite.
    """
    table.tabulate()
    optimizers = training.dense_optimizers(network, nn.Module())
    scales = StepAdam(table.precision.steps)
    rates = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    row_rate = training.table_learning_rate or training.learning_rate
    network.train()
    table.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout) and not dropout:
            module.eval()
    done = 0
    while done < steps:
        batches = data.batches("train", training.batch_size, shuffle_seed=draw_seed(seeds))
        for batch in without_lone_row(batches, network):
            left = 1.0 - done / steps
            for group, rate in rates:
                group["lr"] = rate * left
            batch = batch.to(device)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            scales.zero_grad()
            loss = binary_cross_entropy_with_logits(network(batch.dense, table(batch)), batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            scales.step(step_rate * left)
            table.update(row_rate * left)
            done += 1
            if done == steps:
                break
    # one look at the end: reading every loss back would wait for a GPU, and NaN never heals
    if not bool(loss.detach().isfinite()):
        raise Diverged(
            f"the fine-tuning loss is {float(loss.detach())} after {steps} steps; lower joint.rate"
        )
    learned = (
        [table.rows.weight] if table.precision.steps is None else [table.rows.weight, table.precision.steps]
    )
    if not all(bool(values.isfinite().all()) for values in learned):
        raise Diverged(f"rows are not finite after {steps} steps of fine-tuning; lower joint.rate")


class StepAdam:
    """Adam on the logarithms of learned steps (S,), so that all move at one relative rate.

    Steps of 8 bits are a hundred times smaller than those of 1 bit, and rows that a penalty keeps small make
    all of them small: with one absolute rate, some would double within a few batches.
    """

    def __init__(self, steps: nn.Parameter | None, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.steps = steps
        self.betas = betas
        self.count = 0
        if steps is not None:
            self.moment, self.square = torch.zeros_like(steps), torch.zeros_like(steps)

    def zero_grad(self) -> None:
        if self.steps is not None:
            self.steps.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """steps *= exp(-rate m / sqrt(v)), with the moments of d loss / d log step, bias corrected."""
        if self.steps is None or self.steps.grad is None:
            return
        self.count += 1
        gradient = self.steps.grad * self.steps
        first, second = self.betas
        self.moment.lerp_(gradient, 1 - first)
        self.square.lerp_(gradient.square(), 1 - second)
        moment = self.moment / (1 - first**self.count)
        square = self.square / (1 - second**self.count)
        self.steps.mul_(torch.exp(-rate * moment / (square.sqrt() + 1e-12)))
