"""Distinct rows, their gradients and their updates as custom operators."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoembed_kernels.dedupe import eager_dedupe, eager_sum_repeats, eager_take_rows
from autoembed_kernels.low_row_update import eager_low_row_update
from autoembed_kernels.row_update import RowOptimizer, eager_row_update


@torch.library.custom_op(
    "autoembed::dedupe",
    mutates_args=(),
    schema="(Tensor rows, int bound) -> (Tensor, Tensor, Tensor, Tensor)",
)
def dedupe(rows: Tensor, bound: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Distinct rows (U,), and inverse (N,), order (N,) and starts (U,) of `Repeats`.

    U is not known while tracing: torch 2.4 breaks the graph here unless
    `torch._dynamo.config.capture_dynamic_output_shape_ops` is set.
    """
    unique, repeats = eager_dedupe(rows, bound)
    return unique, repeats.inverse, repeats.order, repeats.starts


@dedupe.register_fake
def _(rows: Tensor, bound: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    distinct = torch.library.get_ctx().new_dynamic_size()
    shapes = (distinct, rows.shape[0], rows.shape[0], distinct)
    unique, inverse, order, starts = (rows.new_empty(shape, dtype=torch.int64) for shape in shapes)
    return unique, inverse, order, starts


@torch.library.custom_op(
    "autoembed::take_rows", mutates_args=(), schema="(Tensor table, Tensor rows) -> Tensor"
)
def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    return eager_take_rows(table, rows)


@take_rows.register_fake
def _(table: Tensor, rows: Tensor) -> Tensor:
    return table.new_empty(rows.shape[0], table.shape[1])


@torch.library.custom_op(
    "autoembed::sum_repeats",
    mutates_args=(),
    schema="(Tensor gradient, Tensor order, Tensor starts) -> Tensor",
)
def sum_repeats(gradient: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    return eager_sum_repeats(gradient.contiguous(), order, starts)


@sum_repeats.register_fake
def _(gradient: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    return gradient.new_empty(starts.shape[0], gradient.shape[1])


@torch.library.custom_op(
    "autoembed::repeat",
    mutates_args=(),
    schema="(Tensor values, Tensor inverse, Tensor order, Tensor starts) -> Tensor",
)
def repeat(values: Tensor, inverse: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    return eager_take_rows(values, inverse)


@repeat.register_fake
def _(values: Tensor, inverse: Tensor, order: Tensor, starts: Tensor) -> Tensor:
    return values.new_empty(inverse.shape[0], values.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    _, _, order, starts = inputs
    ctx.save_for_backward(order, starts)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    return torch.ops.autoembed.sum_repeats(gradient, *ctx.saved_tensors), None, None, None


repeat.register_autograd(_backward, setup_context=_keep)


def _state(optimizer: RowOptimizer, *tensors: Tensor | None) -> dict[str, Tensor]:
    """What `state_tensors` was given."""
    held = [tensor for tensor in tensors if tensor is not None]
    return dict(zip(optimizer.state_names, held, strict=True))


@torch.library.custom_op(
    "autoembed::row_update",
    mutates_args=("weight", "moment", "square", "touches"),
    schema=(
        "(str name, float[] betas, float eps, float l2, Tensor(a!) weight, Tensor(b!)? moment, "
        "Tensor(c!)? square, Tensor(d!)? touches, Tensor rows, Tensor gradient, float learning_rate) -> ()"
    ),
)
def row_update(
    name: str,
    betas: Sequence[float],
    eps: float,
    l2: float,
    weight: Tensor,
    moment: Tensor | None,
    square: Tensor | None,
    touches: Tensor | None,
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """The state as `state_tensors` gives it: torch 2.4 traces no operator that changes a list of tensors."""
    optimizer = RowOptimizer(name, (betas[0], betas[1]), eps, l2)
    held = _state(optimizer, moment, square, touches)
    eager_row_update(optimizer, weight, held, rows, gradient, learning_rate)


@row_update.register_fake
def _(
    name: str,
    betas: Sequence[float],
    eps: float,
    l2: float,
    weight: Tensor,
    moment: Tensor | None,
    square: Tensor | None,
    touches: Tensor | None,
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    return None


@torch.library.custom_op(
    "autoembed::low_row_update",
    mutates_args=("weight", "steps", "moment", "square", "touches"),
    schema=(
        "(str name, float[] betas, float eps, float l2, Tensor(a!) weight, Tensor(b!)? steps, "
        "Tensor(c!)? moment, Tensor(d!)? square, Tensor(e!)? touches, Tensor rows, Tensor values, "
        "Tensor gradient, float learning_rate, int[] chance) -> ()"
    ),
)
def low_row_update(
    name: str,
    betas: Sequence[float],
    eps: float,
    l2: float,
    weight: Tensor,
    steps: Tensor | None,
    moment: Tensor | None,
    square: Tensor | None,
    touches: Tensor | None,
    rows: Tensor,
    values: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: Sequence[int],
) -> None:
    """The state as `state_tensors` gives it; chance: seed and update, or nothing."""
    optimizer = RowOptimizer(name, (betas[0], betas[1]), eps, l2)
    held = _state(optimizer, moment, square, touches)
    # a copy: an operator may change only what it says
    stored = (optimizer, weight, steps, held, rows, values.clone(), gradient, learning_rate)
    eager_low_row_update(*stored, (chance[0], chance[1]) if chance else None)


@low_row_update.register_fake
def _(
    name: str,
    betas: Sequence[float],
    eps: float,
    l2: float,
    weight: Tensor,
    steps: Tensor | None,
    moment: Tensor | None,
    square: Tensor | None,
    touches: Tensor | None,
    rows: Tensor,
    values: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: Sequence[int],
) -> None:
    return None
