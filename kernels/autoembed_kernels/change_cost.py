"""What changes of rows cost in a quadratic model of the loss, summed by group.

    out[g] = sum over rows r of group g of  u_r^T C u_r,    u_r = root_r (read_r - value_r)

with C the symmetric matrix of the group's field. One pass over the rows, and no matrix of changes is kept.
"""

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices
from autoembed_kernels.native.loader import address, native_for, threads


def reference(
    read: Tensor, values: Tensor, root: Tensor, sizes: Tensor, fields: Tensor, metrics: Tensor
) -> list[float]:
    """The same, a row at a time, in float64."""
    out, row = [0.0] * len(sizes), 0
    for group, (size, field) in enumerate(zip(sizes.tolist(), fields.tolist(), strict=True)):
        for _ in range(size):
            change = root[row].double() * (read[row].double() - values[row].double())
            out[group] += float(change @ metrics[field].double() @ change)
            row += 1
    return out


def change_cost(
    read: Tensor, values: Tensor, root: Tensor, sizes: Tensor, fields: Tensor, metrics: Tensor
) -> Tensor:
    """read, values, root (N, D) float32, the rows of G groups behind one another -> costs (G,) float64.

    sizes (G,) int64: rows by group, which sum to N; fields (G,) int64: whose metric (F, D, D) float32 is the
    group's. Raises ValueError where shapes do not fit, IndexError where a field has no metric.
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
    tensors = [tensor.contiguous() for tensor in (read, values, root, metrics)]
    is_float = all(tensor.dtype == torch.float32 for tensor in tensors)
    native = native_for(*tensors) if is_float else None
    if native is None:
        return torch_change_cost(read, values, root, sizes, fields, metrics)
    starts, fields = torch.nn.functional.pad(sizes.cumsum(0), (1, 0)), fields.contiguous()
    out = torch.empty(len(sizes), dtype=torch.float64)
    native.autoembed_change_cost(
        *map(address, tensors), address(starts), address(fields), len(sizes), dim, address(out), threads()
    )
    return out


def torch_change_cost(
    read: Tensor, values: Tensor, root: Tensor, sizes: Tensor, fields: Tensor, metrics: Tensor
) -> Tensor:
    """`change_cost` in torch, on any device."""
    change = (read - values).mul_(root)
    group = torch.arange(len(sizes), device=read.device).repeat_interleave(sizes)
    turned = torch.empty_like(change)
    for field in torch.unique(fields).tolist():
        chosen = (fields[group] == field).nonzero().squeeze(1)
        turned[chosen] = change[chosen] @ metrics[field]
    squares = turned.mul_(change).sum(1).double()
    return squares.new_zeros(len(sizes)).index_add_(0, group, squares)
