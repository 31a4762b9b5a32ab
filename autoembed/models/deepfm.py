"""DeepFM: a factorization machine beside an MLP over the same embeddings.

Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction", arXiv:1703.04247.
Departs from the paper: the first-order weight of an id is the product of its embedding with a learned
vector of its field, <e_f, w_f>. The paper keeps one more float per id in a table of its own, which the
byte model of the embeddings would not see and no method would compress.
"""

import torch
from torch import Tensor, nn

from autoembed.models.config import ModelConfig
from autoembed.models.layers import head, linear


class DeepFM(nn.Module):
    """dense (B, C), embeddings (B, F, D) -> logits (B,)."""

    def __init__(self, config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> None:
        super().__init__()
        width = dense + fields * config.dim
        self.first_order = linear(width, 1, generator)
        self.deep = head(
            width, config.hidden, generator, dropout=config.dropout, batch_norm=config.batch_norm
        )

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        inputs = torch.cat([dense, embeddings.flatten(1)], dim=1)
        total = embeddings.sum(dim=1)  # (B, D)
        # sum over pairs i < j of <e_i, e_j>
        second_order = 0.5 * (total.square().sum(dim=1) - embeddings.square().sum(dim=(1, 2)))
        logits: Tensor = self.first_order(inputs) + self.deep(inputs)
        return logits.squeeze(1) + second_order
