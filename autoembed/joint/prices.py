"""What every choice of every group would cost in loss, in closed form from one sensitivity pass.

With the values that a choice stores (stored_values.py), each row r of a group changes by delta_r, and

    price = 1/2 sum over rows u_r^T C u_r / examples,     u_r = sqrt(V_r) delta_r

with V the row's diagonal sums and C (D, D) the correlation of the field's gradients (sensitivity.py).
C = identity is the plain diagonal.
"""

from collections.abc import Sequence

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
    samples = _samples(groups)
    left = [number for number, group in enumerate(groups) if not _is_dropped(weight, sensitivity, group)]
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


def _samples(groups: Sequence[GroupLike]) -> list[Tensor]:
    """The rows that every group is priced on."""
    generator = torch.Generator().manual_seed(0)
    return [drawn(group.start, group.stop, PRICED_ROWS, generator) for group in groups]


def _is_dropped(weight: Tensor, sensitivity: Sensitivity, group: GroupLike) -> bool:
    first = sensitivity.first_rows[group.field]
    if not group.start or not torch.equal(weight[first + group.start], weight[first]):
        return False
    return bool((weight[first + group.start : first + group.stop] == weight[first]).all())
