"""Rounding that makes up for itself: what one column of a row loses, the columns before it take up.

The loss minds a change delta of a row by delta^T M delta (prices.py). Rounded to nearest, every column errs
by itself, and that is the best only where M is diagonal. It is far from that: the gradients of look-ups point
the same way in many dimensions. Columns are therefore rounded one after the other, the last and coarsest
first, and what was lost so far moves the values of those before it to where they make up for most of it. With
M = R^T R, R upper triangular, column j is rounded at

    x_j + sum over k > j of R_jk / R_jj (x_k - q_k),

Babai's nearest plane (Combinatorica 6, 1986), which GPTQ does to weights of networks (Frantar et al.,
arXiv:2210.17323). Columns that are cut off lose all they hold. Where a grid ends before the place that a
column was moved to, this may lose more than rounding to nearest: each row takes the better of the two.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoembed.methods.plans import Fields, PlacedPart, placed_parts
from autoembed.plan import Sharing
from autoembed_kernels.lsq import Grid

RIDGE = 1e-2  # of the diagonal: correlations of few look-ups have no Cholesky root
ROWS = 1 << 16  # together: they are held several times over
INSIDE = 0.45  # steps that a row is from its rounded value at most, lest its first update turns the rounding


def rounded_together(
    rows: Tensor, parts: Sequence[tuple[int, float, Grid]], metric: Tensor, shares: Tensor
) -> Tensor:
    """Rows (n, D) near `rows` whose rounding to nearest is the one above; 0 in the columns of no part.

    parts: columns of each, from the first on, with its step and grid; shares: `carried` of the metric M.
    """
    columns = [(step, grid) for width, step, grid in parts for _ in range(width)]
    values = rows.T.contiguous()
    nearest = -values  # changes: of columns that are stored, replaced below
    together, found, kept = -values, torch.zeros_like(values), torch.zeros_like(values)
    for j in range(len(columns) - 1, -1, -1):
        step, grid = columns[j]
        aim = values[j] - shares[j, j + 1 :] @ together[j + 1 :]
        stored = _rounded(aim, step, grid)
        together[j] = stored - values[j]
        nearest[j] = _rounded(values[j], step, grid) - values[j]
        found[j] = stored + (aim - stored).clamp_(-INSIDE * step, INSIDE * step)
        kept[j] = values[j]
    better = _losses(together, metric) < _losses(nearest, metric)
    return torch.where(better, found, kept).T.contiguous()


def carried(metric: Tensor) -> Tensor:
    """M (D, D) -> R_jk / R_jj (D, D) float32, zero where k <= j, or everywhere where M has no root."""
    wide = metric.double()
    wide = wide + (RIDGE * wide.diagonal() + 1e-30).diag()
    lower, failed = torch.linalg.cholesky_ex(wide)
    if failed or not lower.isfinite().all():
        return torch.zeros_like(wide, dtype=torch.float32)
    root: Tensor = lower.T
    return (root / root.diagonal().unsqueeze(1)).triu(1).float()


def _rounded(values: Tensor, step: float, grid: Grid) -> Tensor:
    codes = (values / step).sub_(grid.shift).round_().clamp_(grid.lowest, grid.highest)
    return codes.add_(grid.shift).mul_(step)


def _losses(changes: Tensor, metric: Tensor) -> Tensor:
    """delta^T M delta (n,) of changes (D, n)."""
    return (changes * (metric @ changes)).sum(0)


def round_together(
    stored: Tensor, fields: Fields, steps: dict[int, float], metrics: Sequence[Tensor], among: set[int]
) -> None:
    """Do so in place to the stored rows (S, D) of plans `fields` where every id has its own.

    steps: by scale; metrics: M (D, D) of every field, in any unit; `among`: the first stored rows of the
    segments to change.
    """
    heads: dict[int, list[PlacedPart]] = {}
    for part in placed_parts(fields):
        heads.setdefault(part.first, []).append(part)
    shares: dict[int, Tensor] = {}
    for first, parts in heads.items():
        head = parts[0].head
        scaled = all(part.segment.is_integer and part.segment.scale in steps for part in parts)
        if first not in among or head.sharing is not Sharing.OWN or not scaled:
            continue
        field = parts[0].field
        if field not in shares:
            shares[field] = carried(metrics[field])
        known = [
            (part.segment.dim, steps[part.segment.scale or 0], Grid(part.segment.bits, part.segment.mid_rise))
            for part in parts
        ]
        for rows in torch.split(stored[first : first + head.stored_rows], ROWS):
            rows.copy_(rounded_together(rows, known, metrics[field], shares[field]))
