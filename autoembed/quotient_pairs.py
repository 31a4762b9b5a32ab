"""Segments whose ids read a pair of rows: where the two lie, and how they become one vector.

Shared by the trainable tables and by the packed ones, so that both address and combine alike.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoembed.plan import Segment, Sharing
from autoembed_kernels.quotient_remainder import (
    ADD,
    CONCATENATE,
    MULTIPLY,
    combine,
    multiplier,
    quotient_remainder,
    remainder_rows,
)

_HOW = {
    Sharing.QUOTIENT_ADD: ADD,
    Sharing.QUOTIENT_MULTIPLY: MULTIPLY,
    Sharing.QUOTIENT_CONCATENATE: CONCATENATE,
}


class QuotientPairs(nn.Module):
    """The pairs of the given segments (S,), most of which may have none."""

    how: Tensor
    ids: Tensor
    multiplier: Tensor
    remainders: Tensor
    quotients: Tensor
    dim: Tensor

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__()
        columns = torch.tensor([_numbers(segment) for segment in segments], dtype=torch.int64).T.contiguous()
        names = ("how", "ids", "multiplier", "remainders", "quotients", "dim")
        for name, column in zip(names, columns, strict=True):
            self.register_buffer(name, column.clone(), persistent=False)
        self.kinds = tuple(sorted({_HOW[s.sharing] for s in segments if s.sharing.is_paired}))

    def split(self, segment: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look-ups (N,), their segment and place in it -> first stored row (N,), and of the P paired ones
        their number among the look-ups (P,) and their second stored row (P,).

        Stored rows are counted from the start of the segment. Without a pair, place is the stored row.
        """
        paired = (self.how[segment] >= 0).nonzero().squeeze(1)
        where = segment[paired]
        quotient, remainder = quotient_remainder(
            place[paired], self.ids[where], self.multiplier[where], self.remainders[where]
        )
        return place.index_copy(0, paired, quotient), paired, self.quotients[where] + remainder

    def join(self, segment: Tensor, first: Tensor, paired: Tensor, second: Tensor) -> Tensor:
        """Vectors of the first rows (N, W) and of the second rows (P, W) -> of the look-ups (N, W)."""
        where = segment[paired]
        if len(self.kinds) == 1:
            joined = combine(self.kinds[0], first[paired], second, self.dim[where])
            return first.index_copy(0, paired, joined)
        values = first
        for kind in self.kinds:
            some = (self.how[where] == kind).nonzero().squeeze(1)
            joined = combine(kind, first[paired[some]], second[some], self.dim[where[some]])
            values = values.index_copy(0, paired[some], joined)
        return values


def _numbers(segment: Segment) -> tuple[int, ...]:
    if not segment.sharing.is_paired:
        return -1, 1, 1, 1, 0, 0
    remainders = remainder_rows(segment.rows, segment.stored_rows)
    quotients = segment.stored_rows - remainders
    return (
        _HOW[segment.sharing],
        segment.rows,
        multiplier(segment.rows),
        remainders,
        quotients,
        segment.dim,
    )
