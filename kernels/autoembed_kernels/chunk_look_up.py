"""Rows -> vectors whose chunks lie in a shared pool, found through a table of pointers.

    e         = row, or entry[row] where ids are virtual
    chunk c   = pool[pointers[e, c]]        zeros where e or the pointer is ABSENT
    vector    = the chunks behind one another

pool (P, z) float32, pointers (E, k) int32, entry (V,) int32 or None; `chunk_store` keeps them.
"""

from ctypes import CDLL

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices, check_dims
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, checked, native_for, threads

ABSENT = -1


def reference(pool: Tensor, pointers: Tensor, entry: Tensor | None, rows: Tensor) -> Tensor:
    """`chunk_look_up`, chunk by chunk, in float64."""
    chunks, dim = pointers.shape[1], pool.shape[1]
    out = torch.zeros(len(rows), chunks, dim, dtype=torch.float64)
    for n, row in enumerate(rows.tolist()):
        e = row if entry is None else int(entry[row])
        for c in range(chunks if e != ABSENT else 0):
            if pointers[e, c] != ABSENT:
                out[n, c] = pool[int(pointers[e, c])]
    return out.flatten(1)


def chunk_look_up(pool: Tensor, pointers: Tensor, entry: Tensor | None, rows: Tensor) -> Tensor:
    """rows (N,) int64 or int32 -> (N, k z), exactly what lies in the pool.

    Raises IndexError on a CPU where a row is negative or not below E, or V where there are entries, and
    ValueError for other shapes.
    """
    rows = as_indices("rows", rows, torch.int32).contiguous()
    check_dims("pool", pool, "P, z")
    check_dims("pointers", pointers, "E, k")
    if entry is not None:
        check_dims("entry", entry, "V")
    are_int32 = pointers.dtype == (pointers if entry is None else entry).dtype == torch.int32
    served = pool.dtype == torch.float32 and are_int32
    native = native_for(pool, pointers, entry, rows) if served else None
    if native is not None:
        out = pool.new_empty(len(rows), pointers.shape[1] * pool.shape[1])
        return native_chunk_look_up(native, pool, pointers, entry, rows, out)
    check_rows(rows, len(pointers) if entry is None else len(entry))
    if triton_for(pool, pointers, entry, rows) and pool.is_contiguous() and pointers.is_contiguous():
        from autoembed_kernels.gpu.chunk_look_up import triton_chunk_look_up

        return triton_chunk_look_up(pool, pointers, entry, rows)
    return torch_chunk_look_up(pool, pointers, entry, rows)


def native_chunk_look_up(
    library: CDLL, pool: Tensor, pointers: Tensor, entry: Tensor | None, rows: Tensor, out: Tensor
) -> Tensor:
    """`chunk_look_up` into out (N, k z), native/chunk_look_up.cpp."""
    ids = len(pointers) if entry is None else len(entry)
    bad = library.autoembed_chunk_look_up(
        *(address(pool), *pool.shape, address(pointers), *pointers.shape, address(entry), ids),
        *(address(rows), rows.element_size(), len(rows), address(out), threads()),
    )
    checked(bad, rows, ids, "row")
    return out


def torch_chunk_look_up(pool: Tensor, pointers: Tensor, entry: Tensor | None, rows: Tensor) -> Tensor:
    """`chunk_look_up` in torch, on any device."""
    places = pointers_of(pointers, entry, rows).flatten()  # (N k,)
    values = pool.index_select(0, places.clamp(min=0))  # (N k, z)
    # chosen, not multiplied: zero times what is not finite is not zero
    values.masked_fill_((places < 0).unsqueeze(1), 0.0)
    return values.view(len(rows), pointers.shape[1] * pool.shape[1])


def pointers_of(pointers: Tensor, entry: Tensor | None, rows: Tensor) -> Tensor:
    """rows (N,) -> (N, k) int32: places in the pool, ABSENT where a chunk has none."""
    if entry is None:
        return pointers.index_select(0, rows)
    entries = entry.index_select(0, rows)
    if not len(pointers):
        return pointers.new_full((len(rows), pointers.shape[1]), ABSENT)
    found = pointers.index_select(0, entries.clamp(min=0))
    return found.masked_fill_((entries < 0).unsqueeze(1), ABSENT)
