"""Layers that the networks share: initialised linear maps, the MLP, and products of pairs."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear map with zero bias and weights N(0, 2 / (inputs + outputs)) (Glorot and Bengio, 2010)."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.normal_(0.0, math.sqrt(2.0 / (inputs + outputs)), generator=generator)
        layer.bias.zero_()
    return layer


def mlp(
    inputs: int,
    widths: Sequence[int],
    generator: torch.Generator,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Linear, batch norm if wanted, ReLU, dropout if wanted, once per width; no width: the identity."""
    layers: list[nn.Module] = []
    for width in widths:
        layers.append(linear(inputs, width, generator))
        if batch_norm:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU(inplace=True))
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers)


def head(
    inputs: int,
    widths: Sequence[int],
    generator: torch.Generator,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> nn.Sequential:
    """The MLP that ends in one logit: (B, inputs) -> (B, 1)."""
    hidden = mlp(inputs, widths, generator, dropout=dropout, batch_norm=batch_norm)
    return hidden.append(linear(widths[-1] if widths else inputs, 1, generator))


class PairProducts(nn.Module):
    """Dot products of all pairs i < j of V vectors: (B, V, D) -> (B, V (V - 1) / 2).

    First derivatives only.
    """

    upper: Tensor
    mirrored: Tensor

    def __init__(self, vectors: int) -> None:
        super().__init__()
        first, second = torch.triu_indices(vectors, vectors, offset=1)
        mirrored = torch.zeros(vectors, vectors, dtype=torch.int64)
        mirrored[first, second] = mirrored[second, first] = torch.arange(len(first))
        # where pair p stands in the flattened (V, V) products, and which pair stands at each place
        self.register_buffer("upper", first * vectors + second, persistent=False)
        self.register_buffer("mirrored", mirrored.flatten(), persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        if len(self.upper) == 0:
            return vectors.new_zeros(len(vectors), 0)
        products: Tensor = _PairProducts.apply(vectors, self.upper, self.mirrored)  # type: ignore[no-untyped-call]
        return products


class _PairProducts(torch.autograd.Function):
    """The gradient of vector i is the sum over j of g_ij v_j: one product with the mirrored gradient.

    About half the time of autograd's own backward pass through bmm and index_select on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, upper: Tensor, mirrored: Tensor) -> Tensor:
        ctx.save_for_backward(vectors, mirrored)
        # a contiguous second factor makes the batched product three times as fast on a CPU
        products = torch.bmm(vectors, vectors.transpose(1, 2).contiguous())  # (B, V, V)
        return products.flatten(1).index_select(1, upper)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        vectors, mirrored = ctx.saved_tensors
        size, count, _ = vectors.shape
        full = gradient.index_select(1, mirrored).view(size, count, count)
        full.diagonal(dim1=1, dim2=2).zero_()
        return torch.bmm(full, vectors), None, None


def pairs(vectors: int) -> int:
    """Pairs i < j of `vectors` vectors."""
    return vectors * (vectors - 1) // 2
