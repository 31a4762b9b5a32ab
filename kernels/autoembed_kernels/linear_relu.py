"""A layer of a network: a linear map and ReLU, with the passes around its products of matrices put together.

    y = max(x W^T + b, 0)
    g = dy where y > 0, else 0;    dx = g W,    dW = g^T x,    db = sum of g over the batch

torch copies the bias into y, adds the product, and takes ReLU in a pass of its own; backward it masks the
gradient in one pass and sums it in another. In C++ each direction is one pass beside the products.
"""

from ctypes import CDLL
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from autoembed_kernels.native.loader import address, native_for, threads

# numbers in y below which torch's own nodes are as fast: Python between them costs some 30 microseconds
LEAST_NUMBERS = 2**16


def reference(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """inputs (B, I), weight (O, I), bias (O,) -> (B, O), in float64."""
    return (inputs.double() @ weight.double().T + bias.double()).clamp(min=0)


def linear_relu(inputs: Tensor, weight: Tensor, bias: Tensor, alone: bool = False) -> Tensor:
    """inputs (B, I), weight (O, I), bias (O,) -> relu(inputs weight^T + bias) (B, O).

    alone: one linear map reads the result and nobody else, so that its gradient may be overwritten, which
    spares the memory a quarter of the backward pass.
    """
    if _served(inputs, weight, bias):
        out: Tensor = _LinearReLU.apply(inputs, weight, bias, alone)  # type: ignore[no-untyped-call]
        return out
    return linear(inputs, weight, bias).relu_()


def _served(inputs: Tensor, weight: Tensor, bias: Tensor) -> bool:
    if torch.compiler.is_compiling() or inputs.dim() != 2 or weight.dim() != 2:
        return False
    # torch repeats a bias of one number, and tells of other shapes
    if bias.shape != weight.shape[:1] or len(inputs) * len(bias) < LEAST_NUMBERS:
        return False
    if torch.is_autocast_enabled("cpu") or not inputs.dtype == weight.dtype == bias.dtype == torch.float32:
        return False
    return native_for(weight, bias) is not None and inputs.device.type == "cpu"


class _LinearReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, alone: bool) -> Tensor:
        library = native_for(weight, bias)
        assert library is not None
        out = native_bias_relu(library, inputs @ weight.T, bias)
        ctx.save_for_backward(inputs, weight, out)
        ctx.alone = alone
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, out = ctx.saved_tensors
        library = native_for(out)
        assert library is not None
        gradient = gradient.contiguous()
        masked = gradient if ctx.alone else torch.empty_like(gradient)
        summed = native_bias_relu_gradient(library, gradient, out, masked)
        of_inputs, of_weight, *_ = ctx.needs_input_grad
        return (
            masked @ weight if of_inputs else None,
            masked.T @ inputs if of_weight else None,
            summed,
            None,
        )


def native_bias_relu(library: CDLL, values: Tensor, bias: Tensor) -> Tensor:
    """values (B, O), in place: max(values + bias, 0), native/linear_relu.cpp."""
    library.autoembed_bias_relu(address(values), address(bias), *values.shape, threads())
    return values


def native_bias_relu_gradient(library: CDLL, gradient: Tensor, out: Tensor, masked: Tensor) -> Tensor:
    """gradient and what the layer gave (B, O) -> the gradient before ReLU into masked, and its sum (O,)."""
    summed = gradient.new_empty(gradient.shape[1])
    library.autoembed_bias_relu_gradient(
        *(address(gradient), address(out), *gradient.shape),
        *(address(masked), address(summed), threads()),
    )
    return summed
