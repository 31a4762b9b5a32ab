"""What changes of rows cost in a quadratic model of the loss, summed by group.

    out[g] = sum over rows r of group g of  u_r^T C u_r,    u_r = root_r (read_r - value_r)

with C the symmetric matrix of the group's field. One pass over the rows, and no matrix of changes is kept;
where rows are read as integers of a step, they are rounded on the way.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices
from autoembed_kernels.native.loader import address, native_for, threads


@dataclass(frozen=True)
class Rounding:
    """steps (G, D) above 0 by group; lowest, highest, shift (D,), all float32.

    Codes + shift times the step are read, codes whole numbers in [lowest, highest], below 2^22. Columns where
    all three are 0 read 0.
    """

    steps: Tensor
    lowest: Tensor
    highest: Tensor
    shift: Tensor

    def of(self, rows: Tensor, group: Tensor) -> Tensor:
        """rows (N, D) of groups (N,), rounded."""
        steps = self.steps.index_select(0, group)
        codes = (rows / steps).sub_(self.shift).clamp_(self.lowest, self.highest).round_()
        return codes.add_(self.shift).mul_(steps)


def reference(
    read: Tensor,
    values: Tensor,
    root: Tensor,
    sizes: Tensor,
    fields: Tensor,
    metrics: Tensor,
    rounding: Rounding | None = None,
) -> list[float]:
    """The same, a row at a time, in float64."""
    out, row = [0.0] * len(sizes), 0
    if rounding is not None:
        read = rounding.of(read, torch.arange(len(sizes)).repeat_interleave(sizes))
    for group, (size, field) in enumerate(zip(sizes.tolist(), fields.tolist(), strict=True)):
        for _ in range(size):
            change = root[row].double() * (read[row].double() - values[row].double())
            out[group] += float(change @ metrics[field].double() @ change)
            row += 1
    return out


def change_cost(
    read: Tensor,
    values: Tensor,
    root: Tensor,
    sizes: Tensor,
    fields: Tensor,
    metrics: Tensor,
    rounding: Rounding | None = None,
) -> Tensor:
    """read, values, root (N, D) float32, the rows of G groups behind one another -> costs (G,) float64.

    sizes (G,) int64: rows by group, which sum to N; fields (G,) int64: whose metric (F, D, D) float32 is the
    group's; `rounding`: `read` is rounded so first. Raises ValueError where shapes do not fit, IndexError
    where a field has no metric.
    """
    sizes, fields = as_indices("sizes", sizes), as_indices("fields", fields)
    alike = read.shape == values.shape == root.shape and read.dim() == 2
    dim = read.shape[-1]
    if not alike or metrics.shape[1:] != (dim, dim) or sizes.shape != fields.shape:
        raise ValueError(
            f"rows {tuple(read.shape)}, {tuple(values.shape)}, {tuple(root.shape)}, metrics "
            f"{tuple(metrics.shape)}, sizes {tuple(sizes.shape)} and fields {tuple(fields.shape)} do not fit"
        )
    if int(sizes.sum()) != len(read):
        raise ValueError(f"groups of {int(sizes.sum())} rows do not fit {len(read)} rows")
    if len(sizes) and int(sizes.min()) < 0:
        raise ValueError(f"group {int(sizes.argmin())} has {int(sizes.min())} rows, expected 0 or more")
    if len(fields) and not 0 <= int(fields.min()) <= int(fields.max()) < len(metrics):
        raise IndexError(f"fields up to {int(fields.max())} are out of range, there are {len(metrics)}")
    grid = () if rounding is None else (rounding.steps, rounding.lowest, rounding.highest, rounding.shift)
    if grid and (grid[0].shape != (len(sizes), dim) or any(part.shape != (dim,) for part in grid[1:])):
        shapes = ", ".join(str(tuple(part.shape)) for part in grid)
        raise ValueError(f"rounding {shapes} does not fit {len(sizes)} groups of {dim} columns")
    tensors = [tensor.contiguous() for tensor in (read, values, root, metrics, *grid)]
    is_float = all(tensor.dtype == torch.float32 for tensor in tensors)
    native = native_for(*tensors) if is_float else None
    if native is None:
        return torch_change_cost(read, values, root, sizes, fields, metrics, rounding)
    starts, fields = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)), fields.contiguous()
    out = torch.empty(len(sizes), dtype=torch.float64)
    addresses = [address(tensor) for tensor in tensors]
    native.autoembed_change_cost(
        *(*addresses[:4], address(starts), address(fields), len(sizes), dim),
        *(*(addresses[4:] or (0,) * 4), address(out), threads()),
    )
    return out


def torch_change_cost(
    read: Tensor,
    values: Tensor,
    root: Tensor,
    sizes: Tensor,
    fields: Tensor,
    metrics: Tensor,
    rounding: Rounding | None = None,
) -> Tensor:
    """`change_cost` in torch, on any device."""
    group = torch.arange(len(sizes), device=read.device).repeat_interleave(sizes)
    if rounding is not None:
        read = rounding.of(read, group)
    change = (read - values).mul_(root)
    turned = torch.empty_like(change)
    for field in torch.unique(fields).tolist():
        chosen = (fields[group] == field).nonzero().squeeze(1)
        turned[chosen] = change[chosen] @ metrics[field]
    squares = turned.mul_(change).sum(1).double()
    return squares.new_zeros(len(sizes)).index_add_(0, group, squares)
