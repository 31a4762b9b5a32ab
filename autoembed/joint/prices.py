"""What every choice of every group would cost in loss, in closed form from one sensitivity pass.

With the values that a choice stores, each row r of a group changes by delta_r, and

    price = 1/2 sum over rows u_r^T C u_r / examples,     u_r = sqrt(V_r) delta_r

with V the row's diagonal sums and C (D, D) the correlation of the field's gradients (sensitivity.py).
C = identity is the plain diagonal. Stored values:

    own     the rows' prefix, quantized           one     the mean row, weighted by V, quantized
    hashed  each bucket's mean row, quantized     zero    the field's row 0 as it is

Integer codes share one step per group, of 24 tried the one with the least V-weighted squared error of the
prefix (mid-rise grid for 1 and 2 bits, mid-tread above). Rows that the pass never met weigh next to nothing.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from autoembed.joint.sensitivity import Sensitivity
from autoembed.plan import BITS
from autoembed_kernels.lsq import Grid
from autoembed_kernels.row_hash import row_hash

STEP_POINTS = 16
STEP_ROWS = 128  # rows that a step is searched on, and as many of the largest as
LARGEST_ROWS = 32
PRICED_ROWS = 512  # larger groups are priced on so many of their rows, drawn with a fixed seed
_UNSEEN = 1e-3  # weight of a row that the pass never met, of the group's mean weight


class GroupLike(Protocol):
    """Rows [start, stop) of a field."""

    @property
    def field(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...


class ChoiceLike(Protocol):
    """How a group is stored; sharing is own, hashed (to `ratio` of the rows), one or zero."""

    @property
    def sharing(self) -> str: ...
    @property
    def ratio(self) -> float: ...
    @property
    def dim(self) -> int: ...
    @property
    def precision(self) -> str: ...


def price(
    weight: Tensor,
    sensitivity: Sensitivity,
    groups: Sequence[GroupLike],
    choices: Sequence[ChoiceLike],
    *,
    correlated: bool = True,
) -> Tensor:
    """Prices (groups, choices) float64: predicted increase of the mean loss by the choice alone.

    weight (R, D) float32: the rows that the sensitivities were measured at. `correlated`: with the fields'
    correlations; False prices by the diagonal alone.
    """
    prices = torch.zeros(len(groups), len(choices), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for number, group in enumerate(groups):
        rows = torch.arange(group.start, group.stop)
        if len(rows) > PRICED_ROWS:
            rows = rows[torch.randperm(len(rows), generator=generator)[:PRICED_ROWS].sort().values]
        stored = _Stored(weight, sensitivity, group, rows)
        if group.start and bool((stored.values == stored.row_0).all()):
            continue  # dropped at a larger budget: all choices read the same, and zero takes no bytes
        metric = sensitivity.correlation(group.field) if correlated else None
        share = (group.stop - group.start) / len(rows) / max(sensitivity.examples, 1)
        prices[number] = stored.losses(choices, metric) * share
    return prices


def stored_rows(
    weight: Tensor, sensitivity: Sensitivity, group: GroupLike, choice: ChoiceLike
) -> tuple[Tensor, float | None]:
    """What a choice would store: rows (stored, dim) before rounding, and the step of integer codes."""
    stored = _Stored(weight, sensitivity, group, torch.arange(group.start, group.stop))
    if choice.sharing == "zero":
        return weight.new_zeros(0, choice.dim), None
    shared, _, rows_weight = stored.shared(choice)
    return shared[:, : choice.dim], _step(shared, rows_weight, choice)


def read_rows(weight: Tensor, sensitivity: Sensitivity, group: GroupLike, choice: ChoiceLike) -> Tensor:
    """(rows of the group, D): the vectors that its rows read under a choice, all rows exactly."""
    stored = _Stored(weight, sensitivity, group, torch.arange(group.start, group.stop))
    return stored.read([choice])[0]


class _Stored:
    """Some rows of one group, and what choices make of them."""

    def __init__(self, weight: Tensor, sensitivity: Sensitivity, group: GroupLike, rows: Tensor) -> None:
        first = sensitivity.first_rows[group.field]
        where = (first + rows).to(weight.device)
        self.group, self.rows = group, rows.to(weight.device)
        self.values = weight[where]  # (n, D)
        self.second = sensitivity.second[where]
        floor = _UNSEEN * float(self.second.mean()) + 1e-20
        self.weights = self.second + floor
        self.row_0 = weight[first]
        self.is_whole = len(rows) == group.stop - group.start

    def losses(self, choices: Sequence[ChoiceLike], metric: Tensor | None) -> Tensor:
        """(choices,) float64: half the squared change in the metric, summed over the rows."""
        root = self.second.sqrt()
        change = (self.read(choices) - self.values) * root  # (C, n, D)
        turned = change if metric is None else change @ metric.to(change)
        return 0.5 * (turned * change).sum((1, 2)).double().cpu()

    def read(self, choices: Sequence[ChoiceLike]) -> Tensor:
        """(C, n, D): the vectors that the rows read under every choice."""
        out = self.values.new_empty(len(choices), *self.values.shape)
        members: dict[tuple[str, float], list[int]] = {}
        for number, choice in enumerate(choices):
            if choice.sharing == "zero":
                out[number] = self.row_0
            else:
                members.setdefault((choice.sharing, choice.ratio), []).append(number)
        for (sharing, _), numbers in members.items():
            alike = [choices[number] for number in numbers]
            shared, owners, weights = self.shared(alike[0])
            stored = _as_stored(shared, weights, alike)
            # rows of their own are read in order, which needs no copy of all of them
            out[numbers] = stored if sharing == "own" else stored[:, owners]
        return out

    def shared(self, choice: ChoiceLike) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (m, D) that are stored, which of them every row reads (n,), and their weights (m, D)."""
        n = len(self.rows)
        if choice.sharing == "own":
            return self.values, torch.arange(n, device=self.rows.device), self.weights
        if choice.sharing == "one":
            owners, count = torch.zeros_like(self.rows), 1
        else:
            count = max(1, math.ceil(choice.ratio * n))
            # a sample's own numbers fill its buckets as full as those of all rows are
            numbers = self.rows if self.is_whole else torch.arange(n, device=self.rows.device)
            owners = row_hash(numbers, self.group.field, count)
        weights = self.weights.new_zeros(count, self.weights.shape[1]).index_add(0, owners, self.weights)
        sums = torch.zeros_like(weights).index_add(0, owners, self.weights * self.values)
        return sums / weights.clamp(min=1e-30), owners, weights


def _as_stored(rows: Tensor, weights: Tensor, choices: Sequence[ChoiceLike]) -> Tensor:
    """Rows (m, D) -> (C, m, D): a prefix in each choice's precision and zeros behind it."""
    values = rows.expand(len(choices), *rows.shape).clone()
    coded = [number for number, choice in enumerate(choices) if choice.precision.startswith("int")]
    if coded:
        precisions = sorted({choices[number].precision for number in coded})
        steps, errors = _step_errors(rows, weights, precisions)
        kinds = torch.tensor([precisions.index(choices[number].precision) for number in coded])
        dims = torch.tensor([choices[number].dim for number in coded])
        best = _best(steps, errors, kinds.to(rows.device), dims.to(rows.device))
        grids = _grids([choices[number].precision for number in coded], rows)
        values[coded] = _quantized(rows, best.view(-1, 1, 1), grids)
    for number, choice in enumerate(choices):
        if choice.precision in ("fp16", "bf16"):
            half = torch.float16 if choice.precision == "fp16" else torch.bfloat16
            values[number] = rows.to(half).to(rows.dtype)
    kept = torch.tensor([choice.dim for choice in choices], device=rows.device).view(-1, 1, 1)
    return values.masked_fill_(torch.arange(rows.shape[1], device=rows.device) >= kept, 0.0)


def _step(rows: Tensor, weights: Tensor, choice: ChoiceLike) -> float | None:
    if not choice.precision.startswith("int"):
        return None
    steps, errors = _step_errors(rows, weights, [choice.precision])
    return float(_best(steps, errors, torch.zeros(1, dtype=torch.int64), torch.tensor([choice.dim])))


def _best(steps: Tensor, errors: Tensor, kinds: Tensor, dims: Tensor) -> Tensor:
    """(K,): of precision `kinds` (K,), the step with the least error over the first `dims` (K,) columns."""
    upto = errors.cumsum(2)[kinds, :, dims - 1]  # (K, points)
    return steps[kinds, upto.argmin(1)]


def _step_errors(rows: Tensor, weights: Tensor, precisions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Steps (P, points) to try, and the weighted squared error of every column by each, (P, points, D)."""
    if len(rows) > STEP_ROWS:
        # the largest rows count as themselves: a sample that misses them finds steps that clip them
        order = rows.abs().amax(1).argsort(descending=True)
        rest = order[LARGEST_ROWS :: max(1, len(rows) // STEP_ROWS)]
        share = (len(rows) - LARGEST_ROWS) / len(rest)
        weights = torch.cat([weights[order[:LARGEST_ROWS]], weights[rest] * share])
        rows = torch.cat([rows[order[:LARGEST_ROWS]], rows[rest]])
    lowest, highest, shift = _grids(precisions, rows)
    largest = rows.abs().max() if rows.numel() else rows.new_zeros(())
    reach = (highest + shift).clamp(min=0.5).view(-1, 1)
    fractions = torch.logspace(-1.6, 0.0, STEP_POINTS, device=rows.device)
    steps = largest.clamp(min=1e-8) / reach * fractions
    errors = []
    for number in range(len(precisions)):  # together they would not stay in the cache
        grid = lowest[number], highest[number], shift[number]
        change = _quantized(rows, steps[number].view(-1, 1, 1), grid).sub_(rows)
        errors.append(torch.einsum("pmd,pmd,md->pd", change, change, weights))
    return steps, torch.stack(errors)


def _quantized(values: Tensor, step: Tensor, grid: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    lowest, highest, shift = grid
    codes = (values / step).sub_(shift).round_().clamp_(lowest, highest)
    return codes.add_(shift).mul_(step)


def _grids(precisions: Sequence[str], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest and highest code and the shift of every precision, (P, 1, 1) each."""
    grids = [_grid(precision) for precision in precisions]
    columns = torch.tensor([[g.lowest, g.highest, g.shift] for g in grids], device=like.device)
    lowest, highest, shift = columns.to(like.dtype).T.reshape(3, -1, 1, 1)
    return lowest, highest, shift


def _grid(precision: str) -> Grid:
    bits = BITS[precision]
    return Grid(bits, mid_rise=bits <= 2)
