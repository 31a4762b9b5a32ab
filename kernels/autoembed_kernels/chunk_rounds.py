"""Who takes the free places of a pool of chunks, and which chunks are to lose and to gain one in a round.

    admit          chunks without a place take what is free, in order
    choose_moves   utility *= decay, then
                   leave: chunks in the pool with a utility below `low`
                   come:  chunks outside with one above `high` and above zero

pointers (E, k) int32, negative where a chunk has no place; a chunk's number is that in the flat pointers.
Decisions are the same in C++ and torch, to the last chunk. On a GPU torch makes them: how many places
are left, and how many chunks move, are numbers that the caller needs on the CPU, and a round comes once in
many steps.
"""

import torch
from torch import Tensor

from autoembed_kernels.checks import as_indices, check_dims, check_shape
from autoembed_kernels.native.loader import address, checked, native_for, threads

PART = 1 << 16  # chunks that C++ counts together; native/chunk_rounds.cpp has the same number


def reference_admit(pointers: list[list[int]], entries: list[int], free: list[int]) -> None:
    """`admit` chunk by chunk, on a stack of which all places are free."""
    absent = sum(pointer < 0 for e in entries for pointer in pointers[e])
    taken = min(absent, len(free))
    places = iter(free[len(free) - taken :])
    del free[len(free) - taken :]
    for e in entries:
        for c, pointer in enumerate(pointers[e]):
            if pointer < 0:
                pointers[e][c] = next(places, pointer)


def reference_moves(
    pointers: list[int], utility: list[float], low: float, high: float
) -> tuple[list[int], list[int]]:
    """`choose_moves` of utilities that have decayed, chunk by chunk."""
    pairs = list(enumerate(zip(pointers, utility, strict=True)))
    leave = [n for n, (pointer, u) in pairs if pointer >= 0 and u < low]
    return leave, [n for n, (pointer, u) in pairs if pointer < 0 and u > high and u > 0]


def admit(pointers: Tensor, entries: Tensor, free: Tensor, free_count: int) -> int:
    """entries (U,) distinct, int64 or int32; free (P,) int32, whose first `free_count` are unused places.

    Pointers are set in place. Returns how many places are left. Raises IndexError on a CPU where an entry is
    out of range, and ValueError where `free` has fewer places or shapes do not fit; then nothing is changed.
    """
    entries = as_indices("entries", entries, torch.int32)
    check_dims("pointers", pointers, "E, k")
    check_dims("free", free, "P")
    if not 0 <= free_count <= len(free):
        raise ValueError(f"of {len(free)} places in `free`, 0 to {len(free)} are unused, got {free_count}")
    are_int32 = pointers.dtype == free.dtype == torch.int32
    native = native_for(pointers, entries, free) if are_int32 else None
    if native is not None:
        left = native.autoembed_admit_chunks(
            *(address(pointers), *pointers.shape, address(entries), entries.element_size(), len(entries)),
            *(address(free), free_count),
        )
        return checked(left, entries, len(pointers), "entry")
    return torch_admit(pointers, entries, free, free_count)


def torch_admit(pointers: Tensor, entries: Tensor, free: Tensor, free_count: int) -> int:
    """`admit` in torch, on any device."""
    held = pointers.index_select(0, entries)  # (U, k)
    come = (held < 0).flatten().nonzero().squeeze(1)[:free_count]
    left = free_count - len(come)
    held.view(-1)[come] = free[left:free_count].to(held.dtype)
    pointers.index_copy_(0, entries.long(), held)
    return left


def choose_moves(
    pointers: Tensor, utility: Tensor, decay: float, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """pointers, utility (E, k) -> the chunks that leave (L,) and those that come (C,), int64, ascending.

    The utility decays in place. Raises ValueError where shapes differ.
    """
    check_shape("utility", utility, pointers.shape, "one for each pointer")
    served = utility.dtype == torch.float32 and pointers.dtype == torch.int32
    native = native_for(pointers, utility) if served else None
    if native is None:
        return torch_choose_moves(pointers, utility, decay, low, high)
    count = utility.numel()
    counts = torch.zeros(2, -(-count // PART), dtype=torch.int64)
    held = (address(pointers), address(utility), count)
    native.autoembed_count_moves(*held, decay, low, high, *map(address, counts), threads())
    at = torch.nn.functional.pad(counts.cumsum(1), (1, 0))  # (2, parts + 1)
    leave, come = (torch.empty(total, dtype=torch.int64) for total in at[:, -1].tolist())
    native.autoembed_list_moves(*held, low, high, *map(address, (*at, leave, come)), threads())
    return leave, come


def torch_choose_moves(
    pointers: Tensor, utility: Tensor, decay: float, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """`choose_moves` in torch, on any device."""
    utility *= decay
    is_held = pointers >= 0
    leave = is_held & (utility < low)
    # a utility of zero was never looked up
    come = ~is_held & (utility > high) & (utility > 0)
    return leave.flatten().nonzero().squeeze(1), come.flatten().nonzero().squeeze(1)
