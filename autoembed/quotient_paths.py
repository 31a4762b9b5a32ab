"""Segments whose ids read a quotient row on its way through the network of their remainder.

Shared by the trainable tables and by the packed ones, so that both address and compute alike. Which quotient
and which remainder an id has is decided as for pairs (`autoembed_kernels.quotient_remainder`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from autoembed.plan import Segment, Sharing
from autoembed_kernels.path_mlp import HIDDEN_STEP, path_mlp, path_networks, path_rows
from autoembed_kernels.quotient_remainder import multiplier, quotient_remainder


@dataclass(frozen=True)
class Walk:
    """What P look-ups on paths ask for: `chosen` (P,) numbers them, in order of their network.

    `networks`: of each of the networks met, how many look-ups take it, its hidden units and its dimension.
    segment (E,), rows (E,): the stored rows of all these networks, to be read for `join`.
    """

    chosen: Tensor
    networks: tuple[tuple[int, int, int], ...]
    segment: Tensor
    rows: Tensor


class QuotientPaths(nn.Module):
    """The paths of the given segments (S,), most of which may have none."""

    on_path: Tensor
    ids: Tensor
    multiplier: Tensor
    remainders: Tensor
    quotients: Tensor
    size: Tensor

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__()
        self.any_path = any(s.sharing is Sharing.QUOTIENT_PATH for s in segments)
        self.shapes = [(s.chunks * HIDDEN_STEP, s.dim) for s in segments]
        columns = torch.tensor([_numbers(segment) for segment in segments], dtype=torch.int64).T.contiguous()
        for name, column in zip(
            ("ids", "multiplier", "remainders", "quotients", "size"), columns, strict=True
        ):
            self.register_buffer(name, column.clone(), persistent=False)
        self.register_buffer("on_path", self.ids > 0, persistent=False)

    def split(self, segment: Tensor, place: Tensor) -> tuple[Tensor, Walk]:
        """Look-ups (N,), their segment and place in it -> the stored row that each begins with (N,), counted
        from the start of the segment: without a path the place itself; and what the paths need."""
        chosen = self.on_path[segment].nonzero().squeeze(1)
        where = segment[chosen]
        quotient, remainder = quotient_remainder(
            place[chosen], self.ids[where], self.multiplier[where], self.remainders[where]
        )
        # one number per network: segments behind one another, 2^32 remainders each
        network, taken = torch.unique(where << 32 | remainder, return_inverse=True)
        order = taken.argsort(stable=True)
        number, met = network >> 32, torch.bincount(taken, minlength=len(network)).tolist()
        size = self.size[number]
        first = self.quotients[number] + (network & (2**32 - 1)) * size
        starts = torch.repeat_interleave(size.cumsum(0) - size, size)
        rows = torch.repeat_interleave(first, size) + torch.arange(len(starts), device=place.device) - starts
        networks = tuple(
            (count, *self.shapes[which]) for count, which in zip(met, number.tolist(), strict=True)
        )
        walk = Walk(chosen[order], networks, torch.repeat_interleave(number, size), rows)
        return place.index_copy(0, chosen, quotient), walk

    def join(self, values: Tensor, walk: Walk, weights: Tensor) -> Tensor:
        """values (N, W) of the first rows, weights (E, W) of `walk` -> values (N, W) at the paths' ends."""
        if not walk.networks:
            return values
        width, begin, at, ends = values.shape[1], 0, 0, []
        for count, hidden, dim in walk.networks:
            rows = path_rows(hidden, dim)
            x = values[walk.chosen[begin : begin + count], :dim]
            ends.append(pad(path_mlp(x, weights[at : at + rows, :dim], hidden), (0, width - dim)))
            begin, at = begin + count, at + rows
        return values.index_copy(0, walk.chosen, torch.cat(ends))


def _numbers(segment: Segment) -> tuple[int, ...]:
    if segment.sharing is not Sharing.QUOTIENT_PATH:
        return 0, 1, 1, 0, 0
    rows = path_rows(segment.chunks * HIDDEN_STEP, segment.dim)
    networks = path_networks(segment.rows, segment.stored_rows, rows)
    return segment.rows, multiplier(segment.rows), networks, segment.stored_rows - networks * rows, rows
