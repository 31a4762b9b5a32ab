"""Rows that stand for many: one drawn from each of as many equal parts of a range."""

import torch
from torch import Tensor


def drawn(start: int, stop: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the rows [start, stop), ascending; all of them where there are no more.

    Neighbours are alike, where rows are sorted: one row from every part stands for more than any would. The
    cost is of `count` rows, whatever the range.
    """
    rows = stop - start
    if rows <= count:
        return torch.arange(start, stop)
    ends = torch.arange(count + 1) * rows // count
    inside = torch.rand(count, dtype=torch.float64, generator=generator) * ends.diff()
    return start + ends[:-1] + inside.long()
