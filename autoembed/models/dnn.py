"""DNN: an MLP over the concatenated embeddings and dense columns.

Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016, section 4.
"""

import torch
from torch import Tensor, nn

from autoembed.models.config import ModelConfig
from autoembed.models.layers import head


class DNN(nn.Module):
    """dense (B, C), embeddings (B, F, D) -> logits (B,)."""

    def __init__(self, config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> None:
        super().__init__()
        self.head = head(
            dense + fields * config.dim,
            config.hidden,
            generator,
            dropout=config.dropout,
            batch_norm=config.batch_norm,
        )

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([dense, embeddings.flatten(1)], dim=1))
        return logits.squeeze(1)
