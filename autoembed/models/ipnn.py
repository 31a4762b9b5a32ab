"""IPNN: an MLP over the embeddings, their inner products and the dense columns.

Qu et al., "Product-based Neural Networks for User Response Prediction", arXiv:1611.00144, section III.B.
Departs from the paper: the products of all pairs enter the MLP as they are, as in the authors' later
code, in place of the first layer's low-rank form of them.
"""

import torch
from torch import Tensor, nn

from autoembed.models.config import ModelConfig
from autoembed.models.layers import PairProducts, head, pairs


class IPNN(nn.Module):
    """dense (B, C), embeddings (B, F, D) -> logits (B,)."""

    def __init__(self, config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> None:
        super().__init__()
        self.products = PairProducts(fields)
        self.head = head(
            dense + fields * config.dim + pairs(fields),
            config.hidden,
            generator,
            dropout=config.dropout,
            batch_norm=config.batch_norm,
        )

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        logits: Tensor = self.head(
            torch.cat([dense, embeddings.flatten(1), self.products(embeddings)], dim=1)
        )
        return logits.squeeze(1)
