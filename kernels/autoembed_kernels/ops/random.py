"""Random bits by counter and casts by chance as custom operators. None of them has a gradient."""

import torch
from torch import Tensor

from autoembed_kernels.philox import eager_row_chances
from autoembed_kernels.stochastic_round import eager_stochastic_codes, eager_stochastic_round


@torch.library.custom_op(
    "autoembed::row_chances",
    mutates_args=(),
    schema="(int seed, int step, Tensor rows, int columns) -> Tensor",
)
def row_chances(seed: int, step: int, rows: Tensor, columns: int) -> Tensor:
    """seed in [-2^63, 2^63), which stands for the seed modulo 2^64."""
    return eager_row_chances(seed, step, rows, columns).contiguous()


@row_chances.register_fake
def _(seed: int, step: int, rows: Tensor, columns: int) -> Tensor:
    return rows.new_empty(rows.shape[0], columns)


@torch.library.custom_op(
    "autoembed::stochastic_round",
    mutates_args=(),
    schema="(Tensor values, Tensor chances, ScalarType dtype) -> Tensor",
)
def stochastic_round(values: Tensor, chances: Tensor, dtype: torch.dtype) -> Tensor:
    return eager_stochastic_round(values.contiguous(), chances, dtype)


@stochastic_round.register_fake
def _(values: Tensor, chances: Tensor, dtype: torch.dtype) -> Tensor:
    return values.new_empty(values.shape, dtype=dtype)


@torch.library.custom_op(
    "autoembed::stochastic_codes",
    mutates_args=(),
    schema="(Tensor values, Tensor steps, Tensor chances, int lowest, int highest) -> Tensor",
)
def stochastic_codes(values: Tensor, steps: Tensor, chances: Tensor, lowest: int, highest: int) -> Tensor:
    return eager_stochastic_codes(values.contiguous(), steps, chances, lowest, highest)


@stochastic_codes.register_fake
def _(values: Tensor, steps: Tensor, chances: Tensor, lowest: int, highest: int) -> Tensor:
    return values.new_empty(values.shape, dtype=torch.int8)
