"""What rows would read under whole plans, of groups taken with all their rows, a few groups at a time."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from autoembed.joint.codebooks import Codebooks
from autoembed.joint.sensitivity import Sensitivity
from autoembed.joint.stored_values import ChoiceLike, GroupLike, GroupRows

TOGETHER = 1 << 16  # rows of several groups that are worked out at once


class PlanReader:
    """Reads plans of `groups` at the weights (R, D) that `sensitivity` was measured at.

    Memory: weights of the values, as large as the table, and four numbers of every row. `codebooks` of these
    weights are made where none are given.
    """

    def __init__(
        self,
        weight: Tensor,
        sensitivity: Sensitivity,
        groups: Sequence[GroupLike],
        codebooks: Codebooks | None = None,
    ) -> None:
        self.weight, self.groups = weight, groups
        codebooks = codebooks or Codebooks(weight, sensitivity)
        self._batches = [
            (numbers, GroupRows(weight, sensitivity, [groups[n] for n in numbers], codebooks=codebooks))
            for numbers in _batches(groups)
        ]

    def read(self, choices: Sequence[ChoiceLike], plans: Tensor, rows: Tensor) -> Tensor:
        """(P, K, D): what some rows would read under plans, rows of no group as they are.

        plans (P, G): the choice's number of every group; rows (K,): global rows, ascending.
        """
        out = self.weight.index_select(0, rows).repeat(len(plans), 1, 1)
        for numbers, stored in self._batches:
            at = torch.searchsorted(stored.global_rows, rows).clamp(max=len(stored.global_rows) - 1)
            where = (stored.global_rows[at] == rows).nonzero().squeeze(1)
            places = at[where]
            if not len(places):
                continue
            chosen = plans[:, numbers].to(self.weight.device)
            used = torch.unique(chosen)
            of_rows = chosen[:, stored.group[places]]  # (P, n)
            for number, read in stored.read([choices[c] for c in used.tolist()], places):
                plan, place = (of_rows == used[number]).nonzero(as_tuple=True)
                out[plan, where[place]] = read.index_select(0, place)
        return out


def _batches(groups: Sequence[GroupLike]) -> Iterator[list[int]]:
    """Numbers of the groups in the order of their rows, as many together as have `TOGETHER` rows."""
    batch: list[int] = []
    size = 0
    for number in sorted(range(len(groups)), key=lambda n: (groups[n].field, groups[n].start)):
        rows = groups[number].stop - groups[number].start
        if batch and size + rows > TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += rows
    if batch:
        yield batch
