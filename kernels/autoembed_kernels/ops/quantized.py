"""Fake quantization as custom operators, forward and backward. The gradient of no offset is (0,)."""

from typing import Any

import torch
from torch import Tensor

from autoembed_kernels.lsq import (
    fake_quantized,
    fake_quantized_gradients,
    mixed_quantized,
    mixed_quantized_gradients,
)


@torch.library.custom_op(
    "autoembed::fake_quantize",
    mutates_args=(),
    schema=(
        "(Tensor values, Tensor steps, Tensor? offset, Tensor grids, Tensor gradient_scales, Tensor? which) "
        "-> Tensor"
    ),
)
def fake_quantize(
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
) -> Tensor:
    return fake_quantized(values.contiguous(), steps, offset, grids, which)


@fake_quantize.register_fake
def _(
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
) -> Tensor:
    return values.new_empty(values.shape)


@torch.library.custom_op(
    "autoembed::fake_quantize_gradients",
    mutates_args=(),
    schema=(
        "(Tensor gradient, Tensor values, Tensor steps, Tensor? offset, Tensor grids, "
        "Tensor gradient_scales, Tensor? which) -> (Tensor, Tensor, Tensor)"
    ),
)
def fake_quantize_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    d_values, d_steps, d_offset = fake_quantized_gradients(
        gradient.contiguous(), values.contiguous(), steps, offset, grids, gradient_scales, which
    )
    return d_values, d_steps, values.new_empty(0) if d_offset is None else d_offset


@fake_quantize_gradients.register_fake
def _(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    which: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    d_offset = values.new_empty(0 if offset is None else offset.shape[0])
    return values.new_empty(values.shape), steps.new_empty(steps.shape), d_offset


def _keep(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.autoembed.fake_quantize_gradients(gradient, *ctx.saved_tensors)
    d_values, d_steps, d_offset = found
    return d_values, d_steps, None if ctx.saved_tensors[2] is None else d_offset, None, None, None


fake_quantize.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op(
    "autoembed::mix_quantized",
    mutates_args=(),
    schema=(
        "(Tensor values, Tensor steps, Tensor? offset, Tensor grids, Tensor gradient_scales, Tensor mixture) "
        "-> Tensor"
    ),
)
def mix_quantized(
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
) -> Tensor:
    return mixed_quantized(values.contiguous(), steps, offset, grids, mixture)


@mix_quantized.register_fake
def _(
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
) -> Tensor:
    return values.new_empty(values.shape)


@torch.library.custom_op(
    "autoembed::mix_quantized_gradients",
    mutates_args=(),
    schema=(
        "(Tensor gradient, Tensor values, Tensor steps, Tensor? offset, Tensor grids, "
        "Tensor gradient_scales, Tensor mixture) -> (Tensor, Tensor, Tensor, Tensor)"
    ),
)
def mix_quantized_gradients(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_values, d_steps, d_offset, d_mixture = mixed_quantized_gradients(
        *(gradient.contiguous(), values.contiguous(), steps, offset, grids, gradient_scales),
        mixture.contiguous(),
    )
    return d_values, d_steps, values.new_empty(0) if d_offset is None else d_offset, d_mixture


@mix_quantized_gradients.register_fake
def _(
    gradient: Tensor,
    values: Tensor,
    steps: Tensor,
    offset: Tensor | None,
    grids: Tensor,
    gradient_scales: Tensor,
    mixture: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_offset = values.new_empty(0 if offset is None else offset.shape[0])
    shapes = (values.shape, steps.shape, mixture.shape)
    d_values, d_steps, d_mixture = (values.new_empty(shape) for shape in shapes)
    return d_values, d_steps, d_offset, d_mixture


def _mix_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    found = torch.ops.autoembed.mix_quantized_gradients(gradient, *ctx.saved_tensors)
    d_values, d_steps, d_offset, d_mixture = found
    return d_values, d_steps, None if ctx.saved_tensors[2] is None else d_offset, None, None, d_mixture


mix_quantized.register_autograd(_mix_backward, setup_context=_keep)
