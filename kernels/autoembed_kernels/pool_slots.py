"""Where a row's vector lies in one flat pool of values that all rows of all fields share (ROBE).

Desai, Chou and Shrivastava, "Random offset block embedding array (ROBE)", arXiv:2108.02191. A vector of D
values is cut into blocks of Z; block z of row i of field f is the Z values from slot

    row_hash(i, f * 2^16 + z, slots - Z + 1)

on: blocks begin at any slot, not at multiples of Z, and no two blocks of a vector are tied to each other.
"""

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices
from autoembed_kernels.native.loader import address, native_for, threads
from autoembed_kernels.row_hash import reference as reference_row_hash
from autoembed_kernels.row_hash import row_hash

_FIELD = 1 << 16  # more than a vector has blocks


def pool_slots(rows: Tensor, field: int | Tensor, blocks: int, block: int, slots: int) -> Tensor:
    """rows (N,) int64 of `field`, a number or (N,) int64 -> (N, blocks), the first slot of every block.

    `block` Z values of a pool of `slots` >= Z; vectors have `blocks` of them. Raises ValueError where shapes
    do not fit.
    """
    rows = as_indices("rows", rows)
    if not 1 <= block <= slots:
        raise ValueError(f"a pool of {slots} values has no block of {block}")
    if not torch.compiler.is_compiling():
        native = native_for(rows)
        fields = torch.as_tensor(field, dtype=torch.int64, device=rows.device).reshape(-1).contiguous()
        if len(fields) not in (1, len(rows)):
            raise ValueError(f"{len(fields)} fields, expected one or a field for each of {len(rows)} rows")
        if native is not None:
            out = rows.new_empty(len(rows), blocks)
            of_each = (address(fields), int(len(fields) > 1), len(rows), blocks, slots - block + 1)
            native.autoembed_pool_slots(address(rows), *of_each, address(out), threads())
            return out
    return torch_pool_slots(rows, field, blocks, block, slots)


def torch_pool_slots(rows: Tensor, field: int | Tensor, blocks: int, block: int, slots: int) -> Tensor:
    """`pool_slots` in torch, on any device."""
    salt = torch.as_tensor(field, dtype=torch.int64, device=rows.device).reshape(-1, 1) * _FIELD
    number = torch.arange(blocks, device=rows.device)
    return row_hash(rows.unsqueeze(1), salt + number, slots - block + 1)


def reference(row: int, field: int, blocks: int, block: int, slots: int) -> list[int]:
    """The same for one row, in Python's exact integers."""
    return [reference_row_hash(row, field * _FIELD + z, slots - block + 1) for z in range(blocks)]
