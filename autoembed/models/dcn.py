"""DCN: cross layers with a vector each beside an MLP.

Wang et al., "Deep & Cross Network for Ad Click Predictions", arXiv:1708.05123, sections 2.2 to 2.4:

    x_0 = [dense, embeddings],   x_{l+1} = x_0 (w_l . x_l) + b_l + x_l,   logit = w . [x_L, mlp(x_0)] + b

A cross layer has 2 numbers per input here, where `dcnv2` has a full matrix.
"""

import torch
from torch import Tensor, nn

from autoembed.models.config import ModelConfig
from autoembed.models.layers import linear, mlp


class CrossLayer(nn.Module):
    """x_0, x_l (B, W) -> x_{l+1} (B, W)."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear(width, 1, generator).weight.detach()[0].clone())  # (W,)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, inputs: Tensor, crossed: Tensor) -> Tensor:
        return torch.addcmul(crossed + self.bias, inputs, (crossed @ self.weight).unsqueeze(1))


class DCN(nn.Module):
    """dense (B, C), embeddings (B, F, D) -> logits (B,)."""

    def __init__(self, config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> None:
        super().__init__()
        width = dense + fields * config.dim
        self.cross = nn.ModuleList(CrossLayer(width, generator) for _ in range(config.cross_layers))
        self.deep = mlp(width, config.hidden, generator, dropout=config.dropout, batch_norm=config.batch_norm)
        self.out = linear(width + (config.hidden[-1] if config.hidden else width), 1, generator)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        inputs = torch.cat([dense, embeddings.flatten(1)], dim=1)  # (B, C + F D)
        crossed = inputs
        for layer in self.cross:
            crossed = layer(inputs, crossed)
        logits: Tensor = self.out(torch.cat([crossed, self.deep(inputs)], dim=1))
        return logits.squeeze(1)
