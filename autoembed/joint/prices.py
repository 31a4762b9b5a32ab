"""What every choice of every group would cost in loss, in closed form from one sensitivity pass.

With the values that a choice stores (stored_values.py), each row r of a group changes by delta_r, and

    price = 1/2 sum over rows u_r^T C u_r / examples,     u_r = sqrt(V_r) delta_r

with V the row's diagonal sums and C (D, D) the correlation of the field's gradients (sensitivity.py).
C = identity is the plain diagonal.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from autoembed.joint.codebooks import Codebooks
from autoembed.joint.samples import drawn
from autoembed.joint.sensitivity import Sensitivity
from autoembed.joint.stored_values import ChoiceLike, GroupLike, GroupRows
from autoembed_kernels.change_cost import change_cost

PRICED_ROWS = 256  # larger groups are priced on so many of their rows, drawn with a fixed seed


def price(
    weight: Tensor,
    sensitivity: Sensitivity,
    groups: Sequence[GroupLike],
    choices: Sequence[ChoiceLike],
    *,
    correlated: bool = True,
    codebooks: Codebooks | None = None,
) -> Tensor:
    """Prices (groups, choices) float64: predicted increase of the mean loss by the choice alone.

    weight (R, D) float32: the rows that the sensitivities were measured at. `correlated`: with the fields'
    correlations; False prices by the diagonal alone. A group dropped at a larger budget, all of whose rows
    read row 0, costs nothing under any choice, and zero takes no bytes. `codebooks` of these weights are made
    where none are given.
    """
    prices = torch.zeros(len(groups), len(choices), dtype=torch.float64)
    samples = _samples(tuple((group.start, group.stop) for group in groups), PRICED_ROWS)
    dropped = _dropped(weight, sensitivity, groups)
    left = [number for number in range(len(groups)) if number not in dropped]
    if not left:
        return prices
    kept = [groups[number] for number in left]
    stored = GroupRows(weight, sensitivity, kept, [samples[number] for number in left], codebooks)
    root = stored.second.sqrt()
    fields = range(len(sensitivity.first_rows))
    metrics = torch.stack([sensitivity.correlation(field) for field in fields]).to(root)
    if not correlated:
        metrics = torch.eye(weight.shape[1]).to(root).expand_as(metrics)
    of_group = torch.tensor([group.field for group in kept], device=root.device)
    for number, read, rounding in stored.unrounded(choices):
        found = change_cost(read, stored.values, root, stored.sizes, of_group, metrics, rounding)
        prices[left, number] = found.cpu()
    shares = [(g.stop - g.start) / len(rows) for g, rows in zip(groups, samples, strict=True)]
    return prices * (0.5 * torch.tensor(shares).double() / max(sensitivity.examples, 1)).unsqueeze(1)


@lru_cache(maxsize=1)  # a planner prices the same groups again and again
def _samples(ranges: tuple[tuple[int, int], ...], count: int) -> list[Tensor]:
    """The rows that each group, of rows [start, stop), is priced on: `count` at most."""
    generator = torch.Generator().manual_seed(0)
    return [drawn(start, stop, count, generator) for start, stop in ranges]


def _dropped(weight: Tensor, sensitivity: Sensitivity, groups: Sequence[GroupLike]) -> frozenset[int]:
    """Groups behind row 0 all of whose rows are as row 0."""
    first = [sensitivity.first_rows[group.field] for group in groups]
    starts = [begin + group.start for begin, group in zip(first, groups, strict=True)]
    begins, row_0 = (
        weight[torch.tensor(rows, dtype=torch.int64, device=weight.device)] for rows in (starts, first)
    )
    maybe = (begins == row_0).all(1).nonzero().squeeze(1).tolist()
    return frozenset(
        n
        for n in maybe
        if groups[n].start and bool((weight[starts[n] : first[n] + groups[n].stop] == row_0[n]).all())
    )
