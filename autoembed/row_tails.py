"""Rows whose columns are stored in parts: which segments go on in tails behind them, and in which columns."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoembed.plan import Segment, Sharing


class RowTails(nn.Module):
    """The tails of a plan with these segments (S,), in file order.

    `most` is the largest number of tails behind one segment; 0 where no segment has any.
    """

    count: Tensor
    column: Tensor

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__()
        counts, columns = [0] * len(segments), [0] * len(segments)
        head = 0
        for number, segment in enumerate(segments):
            if segment.sharing is Sharing.TAIL:
                counts[head] += 1
                columns[number] = columns[number - 1] + segments[number - 1].dim
            else:
                head = number
        self.most = max(counts, default=0)
        for name, column in (("count", counts), ("column", columns)):
            self.register_buffer(name, torch.tensor(column, dtype=torch.int64), persistent=False)

    def behind(self, segment: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Look-ups (N,) by segment -> those (n,) that go on in tail `number` (1, 2, ...), and its segment."""
        chosen = (self.count[segment] >= number).nonzero().squeeze(1)
        return chosen, segment[chosen] + number

    def moved(self, segment: Tensor, values: Tensor) -> Tensor:
        """values (n, W) of tails, zero behind their own columns -> (n, W), moved to where these belong."""
        width = values.shape[1]
        source = torch.arange(width, device=values.device) - self.column[segment].unsqueeze(1)  # (n, W)
        return values.gather(1, source % width)
