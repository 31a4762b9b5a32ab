"""The `training` section of a study file, and the optimizers that it stands for."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from autoembed.config import Section
from autoembed_kernels.row_update import RowOptimizer

Rate = Annotated[float, Field(gt=0.0, le=10.0)]


class TrainingConfig(Section):
    """The `training` section of a study file. Rates are per step, penalties are c / 2 * |w|^2."""

    batch_size: Annotated[int, Field(ge=1)] = 2048
    optimizer: Literal["adam", "adagrad", "rowwise_adagrad"] = "adam"
    learning_rate: Annotated[Rate, Field(description="network")] = 1e-3
    table_learning_rate: Annotated[Rate | None, Field(description="rows; as the network where absent")] = None
    scale_learning_rate: Annotated[Rate, Field(description="learned scales and gates of a method")] = 1e-3
    l2_rows: Annotated[float, Field(ge=0.0, description="on the rows that a step looks up")] = 0.0
    l2_network: Annotated[float, Field(ge=0.0, description="on the network's matrices")] = 0.0
    epochs: Annotated[int, Field(ge=1, description="at most, in each stage")] = 10
    patience: Annotated[int, Field(ge=1, description="epochs without a new best, then stop")] = 2
    cut_factor: Annotated[float, Field(gt=0.0, le=1.0, description="learning-rate cut")] = 0.1
    cut_patience: Annotated[int, Field(ge=1, description="epochs without a new best, then cut")] = 1
    metric: Annotated[Literal["auc", "logloss"], Field(description="what the best epoch is chosen by")] = (
        "auc"
    )
    initial_std: Annotated[float, Field(gt=0.0, le=1.0, description="of the rows")] = 0.01

    @property
    def row_optimizer(self) -> RowOptimizer:
        """Trains the rows of a table."""
        return RowOptimizer(self.optimizer, l2=self.l2_rows)

    def dense_optimizers(self, network: nn.Module, table: nn.Module) -> list[torch.optim.Optimizer]:
        """One for the network, and one for a method's scales and gates where it has some.

        The latter is Adam in any case: steps and gates differ by orders of magnitude in size and in
        gradient, and no decay is wanted on them. Rows are buffers of the table, not parameters, so that
        no dense optimizer ever sees them.
        """
        parameters = list(network.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.l2_network},
            {"params": [p for p in parameters if p.ndim <= 1]},
        ]
        optimizers: list[torch.optim.Optimizer] = []
        if self.optimizer == "adam":
            optimizers.append(torch.optim.Adam(groups, lr=self.learning_rate, fused=True))
        else:
            optimizers.append(torch.optim.Adagrad(groups, lr=self.learning_rate, eps=1e-8))
        learned = [p for p in table.parameters() if p.requires_grad]
        if learned:
            optimizers.append(torch.optim.Adam(learned, lr=self.scale_learning_rate, fused=True))
        return optimizers
