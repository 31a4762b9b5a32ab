"""DLRM: dense columns pass a bottom MLP, dot products of all vectors and the MLP's output a top MLP.

Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems",
arXiv:1906.00091.
Departs from the paper: without dense columns there is no bottom MLP; the top MLP also sees the
embeddings themselves unless `concat_embeddings` is off.
"""

import torch
from torch import Tensor, nn

from autoembed.models.config import ModelConfig
from autoembed.models.layers import PairProducts, head, mlp, pairs


class DLRM(nn.Module):
    """dense (B, C), embeddings (B, F, D) -> logits (B,)."""

    def __init__(self, config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> None:
        super().__init__()
        self.concat_embeddings = config.concat_embeddings
        self.bottom = mlp(dense, (*config.bottom, config.dim), generator) if dense else None
        vectors = fields + (1 if dense else 0)
        seen_vectors = vectors if config.concat_embeddings else vectors - fields
        if pairs(vectors) + seen_vectors == 0:
            raise ValueError(
                "dlrm over one field and no dense column has no pair to multiply; "
                "set concat_embeddings: true, or use the model 'dnn'"
            )
        self.products = PairProducts(vectors)
        self.top = head(
            pairs(vectors) + seen_vectors * config.dim,
            config.hidden,
            generator,
            dropout=config.dropout,
            batch_norm=config.batch_norm,
        )

    def forward(self, dense: Tensor, embeddings: Tensor) -> Tensor:
        vectors = embeddings
        if self.bottom is not None:
            passed = self.bottom(dense)  # (B, D)
            vectors = torch.cat([passed.unsqueeze(1), embeddings], dim=1)  # (B, V, D)
        inputs = [self.products(vectors)]
        if self.concat_embeddings:
            inputs.append(vectors.flatten(1))
        elif self.bottom is not None:
            inputs.append(passed)
        logits: Tensor = self.top(torch.cat(inputs, dim=1))
        return logits.squeeze(1)
