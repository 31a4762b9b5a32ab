"""DCN-v2: cross layers with full matrices beside an MLP.

Wang et al., "DCN V2: Improved Deep & Cross Network", arXiv:2008.13535, section 3, parallel structure:

    x_0 = [dense, embeddings],   x_{l+1} = x_0 * (W_l x_l + b_l) + x_l,   logit = w . [x_L, mlp(x_0)] + b
"""

import torch
from torch import Tensor, nn

from autoembed.models.config import ModelConfig
from autoembed.models.layers import linear, mlp


class DCNv2(nn.Module):
    """dense (B, C), embeddings (B, F, D) -> logits (B,)."""

    def __init__(self, config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> None:
        super().__init__()
        width = dense + fields * config.dim
        self.cross = nn.ModuleList(linear(width, width, generator) for _ in range(config.cross_layers))
        self.deep = mlp(width, config.hidden, generator, dropout=config.dropout, batch_norm=config.batch_norm)
        self.out = linear(width + (config.hidden[-1] if config.hidden else width), 1, generator)

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        inputs = torch.cat([dense, embeddings.flatten(1)], dim=1)  # (B, C + F D)
        crossed = inputs
        for layer in self.cross:
            crossed = torch.addcmul(crossed, inputs, layer(crossed))
        logits: Tensor = self.out(torch.cat([crossed, self.deep(inputs)], dim=1))
        return logits.squeeze(1)
