"""Rows -> the slots of a set-associative cache that hold them.

    set   = row_hash(row, 0, sets)
    slot  = the first of set * ways .. set * ways + ways - 1 whose tag is the row, or -1

tags (sets * ways,) int32: the row in every slot, or EMPTY; `row_cache` keeps them.
"""

from ctypes import CDLL

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, checked, native_for, threads
from autoembed_kernels.row_hash import reference as reference_row_hash
from autoembed_kernels.row_hash import row_hash

EMPTY = -1


def reference(tags: list[int], ways: int, row: int) -> int:
    """The slot of one row, slot by slot."""
    first = reference_row_hash(row, 0, len(tags) // ways) * ways
    return next((slot for slot in range(first, first + ways) if tags[slot] == row), EMPTY)


def cache_probe(tags: Tensor, ways: int, rows: Tensor, bound: int) -> Tensor:
    """rows (U,) int64 or int32 in [0, bound), bound <= 2^31 -> their slots (U,) int64, EMPTY without one.

    On a CPU with the C++ library, raises IndexError where a row is out of range. Raises ValueError where
    tags are not sets of `ways`, and for another shape of the rows.
    """
    rows = as_indices("rows", rows, torch.int32).contiguous()
    if tags.dim() != 1 or ways < 1 or not len(tags) or len(tags) % ways:
        raise ValueError(f"tags has shape {tuple(tags.shape)}, expected (sets * ways,) with {ways} ways")
    native = native_for(tags, rows) if tags.dtype == torch.int32 else None
    if native is not None:
        out = torch.empty(len(rows), dtype=torch.int64)
        return native_cache_probe(native, tags, ways, rows, bound, out)
    check_rows(rows, bound)
    if triton_for(tags, rows):
        from autoembed_kernels.gpu.cache_probe import triton_cache_probe

        return triton_cache_probe(tags, ways, rows)
    return torch_cache_probe(tags, ways, rows)


def native_cache_probe(
    library: CDLL, tags: Tensor, ways: int, rows: Tensor, bound: int, out: Tensor
) -> Tensor:
    """`cache_probe` into out (U,), native/row_cache.cpp."""
    bad = library.autoembed_cache_probe(
        *(address(tags), len(tags) // ways, ways, address(rows), rows.element_size(), len(rows)),
        *(bound, address(out), threads()),
    )
    checked(bad, rows, bound, "row")
    return out


def torch_cache_probe(tags: Tensor, ways: int, rows: Tensor) -> Tensor:
    """`cache_probe` in torch, on any device, without a check of the rows."""
    rows = rows.long()
    sets = row_hash(rows, 0, len(tags) // ways)
    hit = tags.view(-1, ways)[sets] == rows.unsqueeze(1).int()  # (U, ways)
    slots = sets * ways + hit.int().argmax(1)
    return torch.where(hit.any(1), slots, EMPTY)
