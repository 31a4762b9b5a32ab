"""Rows of all fields -> their values in packed tables whose rows share what is stored: pairs and pools.

    s, row    as in look_up_packed                          place = row - start[s]
    SINGLE    values = gather(s, place, or its hash)
    pairs     p = multiplier[s] * place mod ids[s],         q, r = p div remainders[s], p mod remainders[s]
              values = combine(gather(s, q), gather(s, quotients[s] + r))            `quotient_remainder`
    POOLED    block z of Z values begins at pool_slots(row - field_start[s], field[s])[z]
    SIGNED    ... at signature_slots(the signature at byte index_at[s] + 8 * place of `index`, masks[s])[z]
              values = the blocks behind one another, the first `dim` values of them

Segments that read a pool of floats read it value by value: a stored row is a slot. Columns behind a row's own
are zero.
"""

import ctypes
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices
from autoembed_kernels.gather_packed import PackedSegments, check_words, torch_gather_packed, typed_addresses
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.look_up_packed import PackedRows, stored_rows
from autoembed_kernels.native.loader import address, checked, native_for, readable, threads
from autoembed_kernels.pool_slots import pool_slots
from autoembed_kernels.quotient_remainder import ADD, CONCATENATE, MULTIPLY, combine, quotient_remainder
from autoembed_kernels.signature_pool import read_signatures, signature_slots

SINGLE, POOLED, SIGNED = -1, 3, 4  # and ADD, MULTIPLY, CONCATENATE
_NAMES = ("how", "ids", "multiplier", "remainders", "quotients", "index_at", "masks")
SHARED_DTYPES = {**dict.fromkeys(_NAMES, torch.int64), "index": torch.uint8}
SHARED_TENSORS = tuple(SHARED_DTYPES)


@dataclass(frozen=True)
class SharedRows:
    """Per segment (S,) int64: `how` its rows are addressed, and the numbers of the formulas, 1 where unused.

    masks (S, blocks) int64; index uint8. The pool has `slots` values in blocks of `block`; vectors that read
    it have `blocks` of these and `dim` values. All four are 0 where no segment reads a pool.
    """

    how: Tensor
    ids: Tensor
    multiplier: Tensor
    remainders: Tensor
    quotients: Tensor
    index_at: Tensor
    masks: Tensor
    index: Tensor
    block: int
    blocks: int
    slots: int
    dim: int
    kinds: tuple[int, ...]  # of `how`, those that occur

    @cached_property
    def readable(self) -> bool:
        """Whether C++ can read the tensors."""
        return readable(*(getattr(self, name) for name in SHARED_TENSORS))

    @cached_property
    def native(self) -> "NativeShared":
        """As native/shared_rows.h reads it, made once. Raises TypeError for a tensor of another dtype."""
        numbers = (len(self.index), self.block, self.blocks, self.slots, self.dim)
        return NativeShared(*typed_addresses(self, SHARED_DTYPES), *numbers)

    def __getstate__(self) -> dict[str, object]:
        """All but what is of this process: copies have tensors of their own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("readable", "native")}


class NativeShared(ctypes.Structure):
    """`SharedRows` as native/shared_rows.h reads it; holds addresses, not the tensors."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in SHARED_TENSORS),
        *((name, ctypes.c_int64) for name in ("index_bytes", "block", "blocks", "slots", "dim")),
    )


def look_up_shared(
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    shared: SharedRows,
    rows: Tensor,
    columns: int = 1,
) -> Tensor:
    """words of `as_words`, rows (N,) int64 or int32 -> (N, W) float32. `columns`: as in `look_up_packed`.

    On a CPU with the C++ library, raises IndexError where a row is negative or not below `addresses.rows`.
    Raises ValueError where rows have another shape or words another dtype.
    """
    rows = as_indices("rows", rows, torch.int32).contiguous()
    check_words(words)
    is_readable = segments.readable and addresses.readable and shared.readable
    native = native_for(words, rows) if is_readable else None
    if native is not None:
        out = torch.empty(len(rows), segments.width)
        return native_look_up_shared(native, words, segments, addresses, shared, rows, columns, out)
    check_rows(rows, addresses.rows)
    if triton_for(words, rows):
        from autoembed_kernels.gpu.look_up_shared import triton_look_up_shared

        return triton_look_up_shared(words, segments, addresses, shared, rows)
    return torch_look_up_shared(words, segments, addresses, shared, rows)


def native_look_up_shared(
    library: ctypes.CDLL,
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    shared: SharedRows,
    rows: Tensor,
    columns: int,
    out: Tensor,
) -> Tensor:
    """`look_up_shared` into out (N, W), native/look_up_shared.cpp."""
    bad = library.autoembed_look_up_shared(
        *(address(words), 8 * len(words)),
        *map(ctypes.byref, (segments.native, addresses.native, shared.native)),
        *(address(rows), rows.element_size(), len(rows), max(1, columns), address(out), threads()),
    )
    checked(bad, rows, addresses.rows, "row")
    return out


def torch_look_up_shared(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, shared: SharedRows, rows: Tensor
) -> Tensor:
    """`look_up_shared` in torch, on any device, without a check of the rows."""
    _, segment, place = stored_rows(addresses, rows)
    how = shared.how[segment]
    paired = ((how >= ADD) & (how <= CONCATENATE)).nonzero().squeeze(1)
    pooled = (how >= POOLED).nonzero().squeeze(1)
    where = segment[paired]
    numbers = (shared.ids[where], shared.multiplier[where], shared.remainders[where])
    quotient, remainder = quotient_remainder(place[paired], *numbers)
    stored = place.index_copy(0, paired, quotient).index_fill(0, pooled, 0)
    values = torch_gather_packed(words, segments, segment, stored)
    seconds = torch_gather_packed(words, segments, where, shared.quotients[where] + remainder)
    for kind in (ADD, MULTIPLY, CONCATENATE):
        some = (how[paired] == kind).nonzero().squeeze(1)
        if kind in shared.kinds:
            at = paired[some]
            values[at] = combine(kind, values[at], seconds[some], segments.dim[where[some]])
    if shared.blocks:
        values[pooled] = _pool_vectors(words, segments, addresses, shared, segment[pooled], place[pooled])
    return values


def _pool_vectors(
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    shared: SharedRows,
    segment: Tensor,
    place: Tensor,
) -> Tensor:
    """Look-ups (P,) by their pooled segment and their row in it -> (P, W)."""
    block, blocks, slots = shared.block, shared.blocks, shared.slots
    row = place + addresses.start[segment] - addresses.field_start[segment]
    begins = pool_slots(row, addresses.field[segment], blocks, block, slots)  # (P, blocks)
    signed = (shared.how[segment] == SIGNED).nonzero().squeeze(1)
    where = segment[signed]
    signatures = read_signatures(shared.index, shared.index_at[where] + 8 * place[signed])
    begins[signed] = signature_slots(signatures, shared.masks[where], block, slots)
    read = torch_gather_packed(words, segments, segment.repeat_interleave(blocks), begins.flatten())
    vectors = read[:, :block].reshape(len(place), blocks * block)[:, : shared.dim]
    return torch.nn.functional.pad(vectors, (0, segments.width - shared.dim))
