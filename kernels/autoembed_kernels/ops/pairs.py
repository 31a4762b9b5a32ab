"""`pair_products` as custom operators: the products, and their gradient."""

from typing import Any

import torch
from torch import Tensor

from autoembed_kernels.pair_products import products_gradient, products_of


@torch.library.custom_op(
    "autoembed::pair_products",
    mutates_args=(),
    schema="(Tensor vectors, Tensor upper, Tensor mirrored) -> Tensor",
)
def pair_products(vectors: Tensor, upper: Tensor, mirrored: Tensor) -> Tensor:
    return products_of(vectors.contiguous(), upper)


@pair_products.register_fake
def _(vectors: Tensor, upper: Tensor, mirrored: Tensor) -> Tensor:
    return vectors.new_empty(vectors.shape[0], upper.shape[0])


@torch.library.custom_op(
    "autoembed::pair_products_gradient",
    mutates_args=(),
    schema="(Tensor gradient, Tensor vectors, Tensor mirrored) -> Tensor",
)
def pair_products_gradient(gradient: Tensor, vectors: Tensor, mirrored: Tensor) -> Tensor:
    return products_gradient(gradient.contiguous(), vectors.contiguous(), mirrored)


@pair_products_gradient.register_fake
def _(gradient: Tensor, vectors: Tensor, mirrored: Tensor) -> Tensor:
    return vectors.new_empty(vectors.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    vectors, _, mirrored = inputs
    ctx.save_for_backward(vectors, mirrored)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    vectors, mirrored = ctx.saved_tensors
    return torch.ops.autoembed.pair_products_gradient(gradient, vectors, mirrored), None, None


pair_products.register_autograd(_backward, setup_context=_keep)
