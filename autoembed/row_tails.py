"""Rows whose columns are stored in parts: which segments go on in tails behind them, and in which columns."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from autoembed.plan import Segment, Sharing


class RowTails(nn.Module):
    """The tails of a plan with these segments (S,), in file order.

    `columns` (K,) are those at which any tail begins; () where there is none. `count` (S,) int64: how many
    tails each segment has, which lie behind it; `most`: of any.
    """

    behind: Tensor
    count: Tensor

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__()
        found: dict[int, dict[int, int]] = {}
        head = column = 0
        for number, segment in enumerate(segments):
            if segment.sharing is Sharing.TAIL:
                found.setdefault(column, {})[head] = number
                column += segment.dim
            else:
                head, column = number, segment.dim
        self.columns = tuple(sorted(found))
        behind = torch.full((len(found), len(segments)), -1)  # per column, the tail behind each segment
        for place, column in enumerate(self.columns):
            for head, number in found[column].items():
                behind[place, head] = number
        self.register_buffer("behind", behind, persistent=False)
        count = (behind >= 0).sum(0)
        self.register_buffer("count", count, persistent=False)
        self.most = int(count.max()) if found else 0

    def of(self, segment: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Look-ups (N,) by segment -> for every column in turn, which of them go on there, in which tails."""
        for place, column in enumerate(self.columns):
            tail = self.behind[place][segment]
            chosen = (tail >= 0).nonzero().squeeze(1)
            yield column, chosen, tail[chosen]
