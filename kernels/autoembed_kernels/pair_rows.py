"""Rows that read a pair of stored rows while they train: which two, and how they become one vector.

    stored[n]      = first[s] + place, or of a pair first[s] + quotient          s: the segment of row n
    stored[N + p]  = first[s] + quotients[s] + remainder                         pair p, of look-up paired[p]
    vector[n]      = values[n], or of a pair combine(values[n], values[N + p])   values: rows of `stored`

`quotient_remainder` has quotients, remainders and `combine`; `look_up_shared` does the same for packed rows.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoembed_kernels.checks import as_indices, check_dims, check_shape
from autoembed_kernels.native.loader import address, checked, native_for, threads
from autoembed_kernels.quotient_remainder import ADD, CONCATENATE, MULTIPLY, combine, quotient_remainder


@dataclass(frozen=True)
class PairedSegments:
    """Per segment (S,) int64; `rows` in all.

    start: its first row, ascending from 0; first: its first stored row; how it is paired, -1 where it is not;
    the numbers of its pairs, 1 where it has none; dim: of a stored row.
    """

    start: Tensor
    first: Tensor
    how: Tensor
    ids: Tensor
    multiplier: Tensor
    remainders: Tensor
    quotients: Tensor
    dim: Tensor
    rows: int


@dataclass(frozen=True)
class Pairs:
    """stored (N + P,) int64; of the P pairs `paired`, how and dim (P,) int64."""

    stored: Tensor
    paired: Tensor
    how: Tensor
    dim: Tensor


def pair_places(segments: PairedSegments, rows: Tensor) -> Pairs:
    """rows (N,) int64 -> the stored rows that they read.

    On a CPU with the C++ library, raises IndexError where a row is out of range. Raises ValueError where
    shapes do not fit.
    """
    rows = as_indices("rows", rows)
    held = (
        *(segments.start, segments.first, segments.how, segments.ids),
        *(segments.multiplier, segments.remainders, segments.quotients),
    )
    for tensor in (*held, segments.dim):
        check_shape("a tensor of the segments", tensor, (len(segments.start),), "one for each segment")
    are_int64 = all(tensor.dtype == torch.int64 for tensor in (*held, segments.dim))
    served = are_int64 and len(segments.start) > 0 and not torch.compiler.is_compiling()
    native = native_for(*held, segments.dim, rows) if served else None
    if native is None:
        return torch_pair_places(segments, rows)
    stored = rows.new_empty(2 * len(rows))
    paired, where = torch.empty_like(rows), torch.empty_like(rows)
    pairs = native.autoembed_pair_places(
        *map(address, held),
        *(len(segments.start), segments.rows, address(rows), len(rows)),
        *map(address, (stored, paired, where)),
    )
    checked(pairs, rows, segments.rows, "row")
    where = where[:pairs]
    return Pairs(stored[: len(rows) + pairs], paired[:pairs], segments.how[where], segments.dim[where])


def torch_pair_places(segments: PairedSegments, rows: Tensor) -> Pairs:
    """`pair_places` in torch, on any device."""
    segment = torch.searchsorted(segments.start, rows, right=True) - 1
    place = rows - segments.start[segment]
    paired = (segments.how[segment] >= 0).nonzero().squeeze(1)
    where = segment[paired]
    numbers = (segments.ids[where], segments.multiplier[where], segments.remainders[where])
    quotient, remainder = quotient_remainder(place[paired], *numbers)
    first = segments.first[segment] + place.index_copy(0, paired, quotient)
    second = segments.first[where] + segments.quotients[where] + remainder
    return Pairs(torch.cat([first, second]), paired, segments.how[where], segments.dim[where])


def join_pairs(values: Tensor, pairs: Pairs) -> Tensor:
    """values (N + P, W), zero from a row's dimension on -> (N, W), with their gradient.

    pairs must come from `pair_places`: nobody looks where they point. Raises ValueError where shapes do not
    fit.
    """
    if torch.compiler.is_compiling():
        return torch_join_pairs(values, pairs)
    check_dims("values", values, "N + P, W")
    check_shape("stored", pairs.stored, values.shape[:1], "one for each row of the values")
    for name in ("how", "dim"):
        check_shape(name, getattr(pairs, name), pairs.paired.shape, "one for each pair")
    held = (values, pairs.paired, pairs.how, pairs.dim)
    are_int64 = all(tensor.dtype == torch.int64 for tensor in held[1:])
    if values.dtype != torch.float32 or not are_int64 or native_for(*held) is None:
        return torch_join_pairs(values, pairs)
    joined: Tensor = _Joined.apply(*held)  # type: ignore[no-untyped-call]
    return joined


class _Joined(torch.autograd.Function):
    """In C++, one pass each way."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, paired: Tensor, how: Tensor, dim: Tensor) -> Tensor:
        ctx.save_for_backward(values, paired, how, dim)
        pairs, width = len(paired), values.shape[1]
        native = native_for(values)
        assert native is not None
        out = values.new_empty(len(values) - pairs, width)
        native.autoembed_join_pairs(
            *map(address, (values, paired, how, dim)), len(out), pairs, width, address(out), threads()
        )
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        values, paired, how, dim = ctx.saved_tensors
        gradient = gradient.contiguous()
        native = native_for(values)
        assert native is not None
        out = torch.empty_like(values)
        native.autoembed_join_pairs_gradient(
            *map(address, (values, paired, how, dim, gradient)),
            *(len(gradient), len(paired), values.shape[1], address(out), threads()),
        )
        return out, None, None, None


def torch_join_pairs(values: Tensor, pairs: Pairs) -> Tensor:
    """`join_pairs` in torch, on any device."""
    count = len(values) - len(pairs.paired)
    first, second = values[:count], values[count:]
    joined = first
    for kind in (ADD, MULTIPLY, CONCATENATE):
        some = (pairs.how == kind).nonzero().squeeze(1)
        at = pairs.paired[some]
        joined = joined.index_copy(0, at, combine(kind, first[at], second[some], pairs.dim[some]))
    return joined
