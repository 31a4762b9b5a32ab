"""What groups of rows would lose by rounding, for several steps side by side: the search for a step.

    out[g, p, d] = sum over rows r of group g of  w[r, d] (q(v[r, d]) - v[r, d])^2
    q(v) = (clip(round(v / a - shift), lowest, highest) + shift) a        with the step a = steps[g, p]

One pass over the rows of a group for each of its steps, and no rounded copy of them is kept.
"""

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices, check_dims
from autoembed_kernels.lsq import Grid
from autoembed_kernels.native.loader import address, native_for, threads


def reference(values: Tensor, weights: Tensor, sizes: Tensor, steps: Tensor, grid: Grid) -> Tensor:
    """The same, a step at a time, in float64."""
    out = torch.zeros(*steps.shape, values.shape[1], dtype=torch.float64)
    rows = torch.split(values.double(), sizes.tolist())
    for g, (part, weight) in enumerate(zip(rows, torch.split(weights.double(), sizes.tolist()), strict=True)):
        for p, step in enumerate(steps[g].double()):
            codes = (part / step - grid.shift).round().clamp(grid.lowest, grid.highest)
            out[g, p] = (weight * ((codes + grid.shift) * step - part).square()).sum(0)
    return out


def step_errors(values: Tensor, weights: Tensor, sizes: Tensor, steps: Tensor, grid: Grid) -> Tensor:
    """values, weights (N, D) float32, the rows of G groups behind one another -> errors (G, P, D).

    sizes (G,) int64: rows by group, none below 0, which sum to N; steps (G, P) above zero. Weights and steps
    of other floats are cast to the dtype of the values. Raises ValueError where shapes do not fit.
    """
    sizes = as_indices("sizes", sizes)
    check_dims("values", values, "N, D")
    check_dims("steps", steps, "G, P")
    if values.shape != weights.shape or len(sizes) != len(steps) or int(sizes.sum()) != len(values):
        raise ValueError(
            f"values {tuple(values.shape)}, weights {tuple(weights.shape)}, {len(sizes)} groups of "
            f"{int(sizes.sum())} rows and steps {tuple(steps.shape)} do not fit"
        )
    if len(sizes) and int(sizes.min()) < 0:
        raise ValueError(f"group {int(sizes.argmin())} has {int(sizes.min())} rows, expected 0 or more")
    values, weights, steps = (x.to(values.dtype).contiguous() for x in (values, weights, steps))
    native = native_for(values, weights, steps, sizes) if values.dtype == torch.float32 else None
    if native is None:
        return torch_step_errors(values, weights, sizes, steps, grid)
    starts = torch.nn.functional.pad(sizes.cumsum(0), (1, 0))
    out = values.new_empty(*steps.shape, values.shape[1])
    native.autoembed_step_errors(
        *map(address, (values, weights, starts)),
        *(len(sizes), values.shape[1], address(steps), steps.shape[1]),
        *(grid.lowest, grid.highest, grid.shift, address(out), threads()),
    )
    return out


def torch_step_errors(values: Tensor, weights: Tensor, sizes: Tensor, steps: Tensor, grid: Grid) -> Tensor:
    """`step_errors` in torch, on any device."""
    group = torch.arange(len(sizes), device=values.device).repeat_interleave(sizes)
    errors = []
    for step in steps.T:
        step = step[group].unsqueeze(1)
        codes = (values / step).sub_(grid.shift).round_().clamp_(grid.lowest, grid.highest)
        change = codes.add_(grid.shift).mul_(step).sub_(values)
        sums = values.new_zeros(len(sizes), values.shape[1])
        errors.append(sums.index_add_(0, group, change.square_().mul_(weights)))
    return torch.stack(errors, 1) if errors else values.new_zeros(*steps.shape, values.shape[1])
