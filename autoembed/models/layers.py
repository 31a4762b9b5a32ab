"""Layers that the networks share: initialised linear maps, the MLP, and products of pairs."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoembed_kernels.linear_relu import linear_relu
from autoembed_kernels.pair_products import pair_places, pair_products


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear map with zero bias and weights N(0, 2 / (inputs + outputs)) (Glorot and Bengio, 2010)."""
    layer = nn.Linear(inputs, outputs)
    if layer.weight.is_meta:  # torch takes 2 s to find out what normal numbers are there
        return layer
    with torch.no_grad():
        layer.weight.normal_(0.0, math.sqrt(2.0 / (inputs + outputs)), generator=generator)
        layer.bias.zero_()
    return layer


class Layers(nn.Sequential):
    """Layers one after the other; a linear map and the ReLU behind it are one operation."""

    def forward(self, inputs: Tensor) -> Tensor:
        values, layers = inputs, [*self]
        place = 0
        while place < len(layers):
            layer, *behind = layers[place : place + 3]
            if isinstance(layer, nn.Linear) and behind and isinstance(behind[0], nn.ReLU):
                alone = isinstance(behind[-1], nn.Linear)
                values = linear_relu(values, layer.weight, layer.bias, alone)
                place += 2
            else:
                values = layer(values)
                place += 1
        return values


def mlp(
    inputs: int,
    widths: Sequence[int],
    generator: torch.Generator,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> Layers:
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
    return Layers(*layers)


def head(
    inputs: int,
    widths: Sequence[int],
    generator: torch.Generator,
    *,
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> Layers:
    """The MLP that ends in one logit: (B, inputs) -> (B, 1)."""
    hidden = mlp(inputs, widths, generator, dropout=dropout, batch_norm=batch_norm)
    hidden.append(linear(widths[-1] if widths else inputs, 1, generator))
    return hidden


class PairProducts(nn.Module):
    """Dot products of all pairs i < j of V vectors: (B, V, D) -> (B, V (V - 1) / 2).

    First derivatives only.
    """

    upper: Tensor
    mirrored: Tensor

    def __init__(self, vectors: int) -> None:
        super().__init__()
        empty = torch.empty(0, dtype=torch.int64)
        # on the meta device only the shapes of what is saved are wanted, and torch takes 2 s there, too
        both = (empty, empty) if empty.is_meta else pair_places(vectors)
        for name, places in zip(("upper", "mirrored"), both, strict=True):
            self.register_buffer(name, places, persistent=False)

    def forward(self, vectors: Tensor) -> Tensor:
        if len(self.upper) == 0:
            return vectors.new_zeros(len(vectors), 0)
        return pair_products(vectors, self.upper, self.mirrored)


def pairs(vectors: int) -> int:
    """Pairs i < j of `vectors` vectors."""
    return vectors * (vectors - 1) // 2
