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

STEP_POINTS = 24
STEP_ROWS = 256  # rows that a step is searched on, and as many of the largest as
LARGEST_ROWS = 32
PRICED_ROWS = 2048  # larger groups are priced on so many of their rows, drawn with a fixed seed
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
        kept: dict[tuple[str, float], tuple[Tensor, Tensor, Tensor]] = {}
        errors: dict[tuple[str, float, str], tuple[Tensor, Tensor]] = {}
        parts = []
        for choice in choices:
            if choice.sharing == "zero":
                parts.append(self.row_0.expand_as(self.values))
                continue
            key = (choice.sharing, choice.ratio)
            if key not in kept:
                kept[key] = self.shared(choice)
            shared, owners, weights = kept[key]
            step = None
            if choice.precision.startswith("int"):
                full = (*key, choice.precision)
                if full not in errors:
                    errors[full] = _step_errors(shared, weights, choice.precision)
                step = _best(*errors[full], choice.dim)
            parts.append(_as_stored(shared, choice, step)[owners])
        return torch.stack(parts) if parts else self.values.new_zeros(0, *self.values.shape)

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


def _as_stored(rows: Tensor, choice: ChoiceLike, step: float | None) -> Tensor:
    """Rows (m, D) with a prefix in the choice's precision and zeros behind it."""
    values = rows.clone()
    values[:, choice.dim :] = 0.0
    if step is not None:
        values[:, : choice.dim] = _quantized(values[:, : choice.dim], torch.tensor(step), choice.precision)
    elif choice.precision != "fp32":
        values = values.to(torch.float16 if choice.precision == "fp16" else torch.bfloat16).to(rows.dtype)
    return values


def _step(rows: Tensor, weights: Tensor, choice: ChoiceLike) -> float | None:
    if not choice.precision.startswith("int"):
        return None
    return _best(*_step_errors(rows, weights, choice.precision), choice.dim)


def _best(steps: Tensor, errors: Tensor, dim: int) -> float:
    """The step with the least error over the first `dim` columns."""
    return float(steps[int(errors[:, :dim].sum(1).argmin())])


def _step_errors(rows: Tensor, weights: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Steps (points,) to try, and the weighted squared error of every column by each, (points, D)."""
    if len(rows) > STEP_ROWS:
        # the largest rows count as themselves: a sample that misses them finds steps that clip them
        order = rows.abs().amax(1).argsort(descending=True)
        rest = order[LARGEST_ROWS :: max(1, len(rows) // STEP_ROWS)]
        share = (len(rows) - LARGEST_ROWS) / len(rest)
        weights = torch.cat([weights[order[:LARGEST_ROWS]], weights[rest] * share])
        rows = torch.cat([rows[order[:LARGEST_ROWS]], rows[rest]])
    grid = _grid(precision)
    largest = float(rows.abs().max()) if rows.numel() else 0.0
    reach = max(grid.highest + grid.shift, 0.5)
    fractions = torch.logspace(-1.6, 0.0, STEP_POINTS, device=rows.device)
    steps = max(largest, 1e-8) / reach * fractions
    changes = _quantized(rows, steps.view(-1, 1, 1), precision) - rows  # (points, m, D)
    return steps, (changes.square() * weights).sum(1)


def _quantized(values: Tensor, step: Tensor, precision: str) -> Tensor:
    grid = _grid(precision)
    codes = (values / step - grid.shift).round().clamp(grid.lowest, grid.highest)
    return (codes + grid.shift) * step


def _grid(precision: str) -> Grid:
    bits = BITS[precision]
    return Grid(bits, mid_rise=bits <= 2)
