"""From the rows of a larger model to a trainable table under a smaller plan, and back.

Between plans the walk keeps one latent float32 row per id, (R, D) over all fields. A segment in which every
id has its row takes the latent rows over; ids that share rows start from the mean of theirs, weighted by
look-ups; ids that read their field's row 0 leave nothing behind. A learned step is kept where the same rows
are stored alike again, otherwise the step with the least squared error is searched. Ids that read a codebook
share its rows as their codes say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autoembed.joint.rounding import round_together
from autoembed.methods.base import TableSpec
from autoembed.methods.fixed_plan import FixedPlanTable, stored_widths
from autoembed.methods.plans import Codes, Fields, PlacedPart, placed_parts, placed_segments
from autoembed.methods.row_address import RowAddress
from autoembed.plan import Segment, Sharing
from autoembed_kernels.lsq import Grid
from autoembed_kernels.row_update import RowOptimizer

SEARCH_POINTS = 24
_SEARCH_VALUES = 1 << 13  # a step is searched on at most so many values

StepKey = tuple[int, int, int, int, int, int, int, int]  # see step_key


@dataclass(frozen=True)
class Weights:
    """What the walk carries from budget to budget: rows (R, D) of all ids, and learned steps."""

    rows: Tensor
    steps: dict[StepKey, float] = field(default_factory=dict)


def table_under(
    spec: TableSpec,
    fields: Fields,
    weights: Weights,
    optimizer: RowOptimizer,
    codes: Codes | None = None,
    metrics: Sequence[Tensor] | None = None,
) -> FixedPlanTable:
    """A trainable table under the plan `fields` that starts from `weights`.

    `metrics` (D, D) of every field tell how the loss minds changes of its rows: with them, rows that are
    stored otherwise than before are rounded together (rounding.py).
    """
    stored = stored_rows(spec, fields, weights.rows, codes)
    found: dict[int, float] = {}
    changed: set[int] = set()
    parts: dict[int, list[tuple[Segment, Tensor]]] = {}
    for part in placed_parts(fields):
        segment = part.segment
        if segment.is_integer and segment.scale is not None:
            rows = stored[part.first : part.first + segment.stored_rows]
            values = rows[:, part.column : part.column + segment.dim]
            parts.setdefault(segment.scale, []).append((segment, values))
            known = weights.steps.get(step_key(part))
            if known is None:
                changed.add(part.first)
            else:
                found[segment.scale] = known
    for scale, members in parts.items():
        if scale not in found:
            grid = Grid(members[0][0].bits, members[0][0].mid_rise)
            found[scale] = best_step(torch.cat([values.flatten() for _, values in members]), grid)
    if metrics is not None:
        round_together(stored, fields, found, metrics, changed)
    steps = torch.tensor([found.get(scale, 1.0) for scale in range(1 + max(found, default=-1))])
    return FixedPlanTable(spec, fields, stored, optimizer, steps.to(stored.device), codes=codes)


def stored_rows(spec: TableSpec, fields: Fields, rows: Tensor, codes: Codes | None = None) -> Tensor:
    """Latent rows (R, D) of all ids -> the rows (stored, D) that a plan stores, in the order of its segments.

    Rows that several ids share become the mean of their rows, weighted by look-ups in train (at least one).
    """
    address = RowAddress(fields, codes).to(rows.device)
    stored = rows.new_zeros(address.stored_rows, rows.shape[1])
    for number, s, place in placed_segments(fields):
        first = spec.stats.first_rows[number]
        own = rows[first + s.start : first + s.stop]
        if s.sharing is Sharing.OWN:
            stored[place : place + s.stored_rows] = own
            continue
        places = address(torch.arange(first + s.start, first + s.stop, device=rows.device)) - place
        counts = torch.from_numpy(spec.stats.fields[number].counts[s.start : s.stop]).to(rows.device)
        shares = counts.clamp(min=1).double().unsqueeze(1)
        total = shares.new_zeros(s.stored_rows, 1).index_add_(0, places, shares)
        sums = shares.new_zeros(s.stored_rows, rows.shape[1]).index_add_(0, places, own.double() * shares)
        stored[place : place + s.stored_rows] = (sums / total.clamp(min=1.0)).float()
    return stored


@torch.no_grad()
def weights_of(table: FixedPlanTable) -> Weights:
    """The latent row of every id after training under a plan, and the learned steps.

    Ids that share a row all get it. What a prefix cuts off is zero from then on.
    """
    spec, device = table.spec, table.rows.weight.device
    rows = table.address(torch.arange(spec.stats.rows, device=device))
    latent = table.rows.weight.clone()
    steps: dict[StepKey, float] = {}
    for (_, segment, first), width in zip(
        placed_segments(table.fields), stored_widths(table.fields), strict=True
    ):
        latent[first : first + segment.stored_rows, width:] = 0.0
    for part in placed_parts(table.fields):
        scale = part.segment.scale
        if part.segment.is_integer and scale is not None and table.precision.steps is not None:
            steps[step_key(part)] = abs(float(table.precision.steps[scale]))
    return Weights(latent[rows], steps)


def step_key(part: PlacedPart) -> StepKey:
    """What must be unchanged for a learned step to be kept: the rows, their columns, how they are stored.

    Field, start, stop, sharing, stored rows, first column, dim, bits.
    """
    head, s = part.head, part.segment
    return part.field, head.start, head.stop, int(head.sharing), s.stored_rows, part.column, s.dim, s.bits


def best_step(values: Tensor, grid: Grid) -> float:
    """The step, of 24 between the largest value's and a twentieth of it, with the least squared error.

    values (n,) float32; positive also where all values are zero.
    """
    largest = float(values.abs().max()) if len(values) else 0.0
    if len(values) > _SEARCH_VALUES:  # by chance: evenly taken ones may all be of the same columns
        chosen = torch.randint(len(values), (_SEARCH_VALUES,), generator=torch.Generator().manual_seed(0))
        values = values[chosen.to(values.device)]
    if largest == 0.0:
        return 1e-4
    reach = grid.highest + grid.shift or 1.0
    points = torch.arange(1, SEARCH_POINTS + 1, device=values.device).unsqueeze(1) / SEARCH_POINTS
    steps = largest / max(reach, 0.5) * (0.05 + 0.95 * points)
    codes = (values / steps).sub_(grid.shift).round_().clamp_(grid.lowest, grid.highest).add_(grid.shift)
    errors = codes.mul_(steps).sub_(values).square_().sum(1)
    return float(steps[int(errors.argmin())])
