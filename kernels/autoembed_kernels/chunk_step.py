"""One step on rows whose chunks lie in a shared pool: utilities grow, and what is in the pool is trained.

For a distinct entry e with gradient g, summed over the look-ups of its row and cut into k chunks of z:

    utility[e, c] += |g[c]|                                               in the pool or not
    pool[p] and its state: `row_update` with g[c]                         where p = pointers[e, c] is a place

`chunk_store` says what entries, pointers and utilities are.
"""

from ctypes import CDLL

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices, check_dims, check_shape
from autoembed_kernels.dedupe import Repeats, sum_repeats
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, checked, native_for, threads
from autoembed_kernels.row_update import (
    OPTIMIZERS,
    RowOptimizer,
    check_state,
    row_update,
    serves_state,
    state_tensors,
)
from autoembed_kernels.row_update import reference as row_reference


def reference(
    optimizer: RowOptimizer,
    pool: Tensor,
    state: dict[str, Tensor],
    utility: Tensor,
    pointers: Tensor,
    entries: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """`chunk_step`, a chunk at a time; all but the pointers in float64, gradient (U, k z)."""
    for e, g in zip(entries.tolist(), gradient, strict=True):
        for c, part in enumerate(g.view(pointers.shape[1], -1)):
            utility[e, c] += part.square().sum().sqrt()
            if pointers[e, c] >= 0:
                row_reference(
                    optimizer, pool, state, pointers[e, c : c + 1], part.unsqueeze(0), learning_rate
                )


def chunk_step(
    optimizer: RowOptimizer,
    pool: Tensor,
    state: dict[str, Tensor],
    utility: Tensor,
    pointers: Tensor,
    entries: Tensor,
    gradient: Tensor,
    learning_rate: float,
    repeats: Repeats | None = None,
) -> None:
    """In place: pool (P, z), its state, utility (E, k), at entries (U,), distinct, int64 or int32.

    gradient: (U, k z), or with `repeats` that of all look-ups (N, k z), summed on the way in the order of
    `sum_repeats`. Raises IndexError on a CPU where an entry is out of range, and ValueError where shapes do
    not fit or state is missing; then nothing is changed. `repeats` must come from `dedupe`: where they point
    is not looked at.
    """
    entries = as_indices("entries", entries, torch.int32)
    check_dims("pool", pool, "P, z")
    check_dims("pointers", pointers, "E, k")
    check_shape("utility", utility, pointers.shape, "one for each pointer")
    check_state(optimizer, pool, state)
    if repeats is not None:
        repeats = Repeats(
            repeats.inverse, as_indices("order", repeats.order), as_indices("starts", repeats.starts)
        )
        check_shape("starts", repeats.starts, entries.shape, "one for each of entries")
    count = len(entries) if repeats is None else len(repeats.order)
    each = "entries" if repeats is None else "the look-ups"
    shape = (count, pointers.shape[1] * pool.shape[1])
    check_shape("gradient", gradient, shape, f"the chunks of each of {each}")
    gradient = gradient.contiguous()
    spans = (None, None) if repeats is None else (repeats.order, repeats.starts)
    is_float32 = pool.dtype == gradient.dtype == utility.dtype == torch.float32
    held = (pool, utility, pointers, *state.values())
    served = is_float32 and pointers.dtype == torch.int32 and serves_state(optimizer, state)
    native = native_for(*held, entries, gradient, *spans) if served else None
    if native is not None:
        native_chunk_step(
            native, optimizer, pool, state, utility, pointers, entries, gradient, learning_rate, repeats
        )
        return
    check_rows(entries, len(pointers))
    if repeats is not None:
        gradient = sum_repeats(gradient, repeats.order, repeats.starts)
    is_dense = all(tensor.is_contiguous() for tensor in held)
    if served and is_dense and triton_for(*held, entries, gradient):
        from autoembed_kernels.gpu.chunk_step import triton_chunk_step

        triton_chunk_step(optimizer, pool, state, utility, pointers, entries, gradient, learning_rate)
    else:
        torch_chunk_step(optimizer, pool, state, utility, pointers, entries, gradient, learning_rate)


def native_chunk_step(
    library: CDLL,
    optimizer: RowOptimizer,
    pool: Tensor,
    state: dict[str, Tensor],
    utility: Tensor,
    pointers: Tensor,
    entries: Tensor,
    gradient: Tensor,
    learning_rate: float,
    repeats: Repeats | None = None,
) -> None:
    """`chunk_step` in one pass over the entries, native/chunk_step.cpp."""
    spans = (None, None) if repeats is None else (repeats.order, repeats.starts)
    bad = library.autoembed_chunk_step(
        *(OPTIMIZERS.index(optimizer.name), address(pool), *pool.shape),
        *map(address, (*state_tensors(state), utility, pointers)),
        *(*pointers.shape, address(entries), entries.element_size(), len(entries)),
        *(*map(address, (gradient, *spans)), len(gradient)),
        *(learning_rate, optimizer.eps, optimizer.l2, *optimizer.betas),
        threads(),
    )
    checked(bad, entries, len(pointers), "entry")


def torch_chunk_step(
    optimizer: RowOptimizer,
    pool: Tensor,
    state: dict[str, Tensor],
    utility: Tensor,
    pointers: Tensor,
    entries: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """`chunk_step` in torch, on any device; gradient (U, k z)."""
    places = pointers.index_select(0, entries)  # (U, k)
    by_chunk = gradient.view(*places.shape, pool.shape[1])
    utility.index_add_(0, entries, by_chunk.norm(dim=2))
    places, by_chunk = places.flatten(), by_chunk.flatten(0, 1)
    present = (places >= 0).nonzero().squeeze(1)
    rows = places.index_select(0, present).long()
    row_update(optimizer, pool, state, rows, by_chunk.index_select(0, present), learning_rate)


def number_entries(entry: Tensor, rows: Tensor, taken: int) -> tuple[Tensor, int]:
    """entry (V,) int32, rows (U,) int64 distinct -> their entries (U,) int32, and how many entries are taken.

    Rows without one get the next, from `taken` on, in order; `entry` keeps them. Raises IndexError on a CPU
    where a row is out of range, and ValueError for other shapes; then nothing is changed.
    """
    rows = as_indices("rows", rows)
    check_dims("entry", entry, "V")
    native = native_for(entry, rows) if entry.dtype == torch.int32 else None
    if native is not None:
        entries = entry.new_empty(len(rows))
        numbered = native.autoembed_new_entries(
            *(address(entry), len(entry), address(rows), len(rows), taken, address(entries))
        )
        return entries, checked(numbered, rows, len(entry), "row")
    entries = entry.index_select(0, rows)
    new = (entries < 0).nonzero().squeeze(1)
    if len(new):
        entries[new] = torch.arange(taken, taken + len(new), dtype=entry.dtype, device=entry.device)
        entry.index_copy_(0, rows, entries)
    return entries, taken + len(new)
