"""What choices make of rows: the vectors that look-ups would read, for many groups side by side.

    own     the rows' prefix, quantized           one     the mean row, weighted by V, quantized
    hashed  each bucket's mean row, quantized     zero    the field's row 0 as it is
    codebook    the nearest row of the field's codebook (codebooks.py), in 256 steps of its largest value

with V the sensitivities of the values (sensitivity.py). Integer codes share one step per group, of
`STEP_POINTS` tried the one with the least V-weighted squared error of the prefix (mid-rise grid for 1 and 2
bits, mid-tread above). Rows that the pass never met weigh next to nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from autoembed.joint.codebooks import Codebooks
from autoembed.joint.sensitivity import Sensitivity
from autoembed.plan import BITS
from autoembed_kernels.add_rows import add_rows
from autoembed_kernels.change_cost import Rounding
from autoembed_kernels.lsq import Grid
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.step_errors import step_errors

STEP_POINTS = 16
STEP_ROWS = 128  # rows of a group that its step is searched on, and as many of the largest as
LARGEST_ROWS = 32
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
    """How a group is stored; sharing is own, hashed (to `ratio` of the rows), codebook, one or zero."""

    @property
    def sharing(self) -> str: ...
    @property
    def ratio(self) -> float: ...
    @property
    def dim(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def code_bits(self) -> int: ...
    @property
    def parts(self) -> tuple[tuple[int, str], ...]:
        """Where each part of the columns ends, and its precision; () where they are stored alike."""
        ...


Steps = dict[tuple[str, int, int], Tensor]  # (G,) by precision and first and last column


class GroupRows:
    """Rows of groups behind one another, N in all, and what choices make of them.

    `samples`: per group the rows of the field that stand for it, ascending; without, all of them. values,
    second (N, D); group (N,): of which group each row is; field (N,).
    """

    def __init__(
        self,
        weight: Tensor,
        sensitivity: Sensitivity,
        groups: Sequence[GroupLike],
        samples: Sequence[Tensor] | None = None,
        codebooks: Codebooks | None = None,
    ) -> None:
        device = weight.device
        rows = samples or [torch.arange(group.start, group.stop) for group in groups]
        self.sizes = torch.tensor([len(part) for part in rows], device=device)
        self.group = torch.arange(len(groups), device=device).repeat_interleave(self.sizes)
        fields = torch.tensor([group.field for group in groups], device=device)
        self.field = fields[self.group]
        local = torch.cat(list(rows)).to(device)
        first = torch.tensor(sensitivity.first_rows, device=device)
        self.global_rows = first[self.field] + local  # (N,)
        self.values = _taken(weight, self.global_rows)  # (N, D)
        self.second = _taken(sensitivity.second, self.global_rows)
        self.row_0 = weight[first[fields]]  # (G, D)
        self.codebooks = codebooks or Codebooks(weight, sensitivity)
        means = _sums(self.second.sum(1, keepdim=True), self.group, len(groups)).squeeze(1)
        means = means / (self.sizes * weight.shape[1]).clamp(min=1)
        self.weights = self.second + (_UNSEEN * means + 1e-20)[self.group].unsqueeze(1)
        # a sample's own numbers fill its buckets as full as those of all rows are
        starts = torch.cumsum(self.sizes, 0) - self.sizes
        place = torch.arange(len(local), device=device) - starts[self.group]
        whole = torch.tensor([g.stop - g.start for g in groups], device=device) == self.sizes
        self.hashed_number = torch.where(whole[self.group], local, place)

    def read(
        self, choices: Sequence[ChoiceLike], places: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Number of every choice, in the order that saves work, and what the rows read under it (N, D).

        `places` (n,): of these rows alone, (n, D).
        """
        group = self.group if places is None else self.group[places]
        for number, rows, rounding in self.unrounded(choices, places):
            yield number, rows if rounding is None else rounding.of(rows, group)

    def unrounded(
        self, choices: Sequence[ChoiceLike], places: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor, Rounding | None]]:
        """As `read`, before the rows are rounded; choices that share rows alike yield the same rows."""
        members: dict[tuple[str, float, int], list[int]] = {}
        for number, choice in enumerate(choices):
            if choice.sharing == "zero":
                group = self.group if places is None else self.group[places]
                yield number, self.row_0.index_select(0, group), None
            else:
                members.setdefault((choice.sharing, choice.ratio, choice.code_bits), []).append(number)
        for numbers in members.values():
            alike = [choices[number] for number in numbers]
            if alike[0].sharing == "codebook":
                for number, read in zip(numbers, self._coded(alike, places), strict=True):
                    yield number, read, None
                continue
            shared = self.shared(alike[0])
            rows = shared.read(places)
            steps = shared.steps(alike)
            for number in numbers:
                yield number, *_stored(rows, choices[number], steps)

    def _coded(self, choices: Sequence[ChoiceLike], places: Tensor | None) -> Iterator[Tensor]:
        """Of choices that read codebooks of one size, what the rows read, field by field."""
        values = self.values if places is None else self.values.index_select(0, places)
        # a field's groups stand together, but for callers of their own mind
        fields, counts = torch.unique_consecutive(
            self.field if places is None else self.field[places], return_counts=True
        )
        bits = choices[0].code_bits
        parts = []
        for number, rows in zip(fields.tolist(), torch.split(values, counts.tolist()), strict=True):
            codebook = self.codebooks.of(number)[bits]
            parts.append((codebook, self.codebooks.metrics[number].nearest(rows, codebook)))
        for choice in choices:
            read = [values.new_zeros(0, values.shape[1])]
            for codebook, codes in parts:
                prefix = codebook[:, : choice.dim]
                step = prefix.abs().max().clamp(min=1e-8) / 127
                stored = (prefix / step).round().clamp(-127, 127) * step
                stored = pad(stored, (0, codebook.shape[1] - choice.dim))
                read.append(stored.index_select(0, codes))
            yield torch.cat(read)

    def shared(self, choice: ChoiceLike) -> "SharedRows":
        """The rows that the choice's sharing leaves, before rounding."""
        groups = len(self.sizes)
        if choice.sharing == "own":
            return self._own
        if choice.sharing == "one":
            owner, counts = self.group, torch.ones_like(self.sizes)
        else:
            counts = (self.sizes.double() * choice.ratio).ceil().long().clamp(min=1)
            buckets = row_hash(self.hashed_number, self.field, counts[self.group])
            owner = (torch.cumsum(counts, 0) - counts)[self.group] + buckets
        total = int(counts.sum())
        weights = _sums(self.weights, owner, total)
        rows = _sums(self.weights * self.values, owner, total) / weights.clamp(min=1e-30)
        group = torch.arange(groups, device=rows.device).repeat_interleave(counts)
        return SharedRows(rows, weights, group, counts, owner)

    @cached_property
    def _own(self) -> "SharedRows":
        return SharedRows(self.values, self.weights, self.group, self.sizes, None)


@dataclass(frozen=True)
class SharedRows:
    """Rows (m, D) that are stored, with their weights (m, D) and groups (m,), ascending.

    sizes (G,): rows by group; owner (N,): which of them every row reads, None where each has its own.
    """

    rows: Tensor
    weights: Tensor
    group: Tensor
    sizes: Tensor
    owner: Tensor | None

    def steps(self, choices: Sequence[ChoiceLike]) -> Steps:
        """(G,) steps of the integer choices, by precision and first and last column."""
        asked: dict[tuple[str, int], set[int]] = {}
        for choice in choices:
            for start, stop, precision in _pieces(choice):
                if precision.startswith("int"):
                    asked.setdefault((precision, start), set()).add(stop)
        if not asked:
            return {}
        rows, weights, group = self._step_rows
        counts = torch.bincount(group, minlength=len(self.sizes))
        fractions = torch.logspace(-1.6, 0.0, STEP_POINTS, device=rows.device)
        sizes = rows.abs()
        of_columns = sizes.new_zeros(len(self.sizes), sizes.shape[1])
        of_columns.scatter_reduce_(0, group.unsqueeze(1).expand_as(sizes), sizes, "amax")
        found = {}
        for (precision, start), stops in sorted(asked.items()):
            largest = of_columns[:, start:].amax(1)
            part, weight = (x[:, start : max(stops)].contiguous() for x in (rows, weights))
            grid = _grid(precision)
            reach = max(grid.highest + grid.shift, 0.5)
            tried = largest.clamp(min=1e-8).unsqueeze(1) / reach * fractions  # (G, points)
            upto = step_errors(part, weight, counts, tried, grid).cumsum(2)  # (G, points, columns)
            for stop in stops:
                best = upto[:, :, stop - start - 1].argmin(1, keepdim=True)
                found[precision, start, stop] = tried.gather(1, best).squeeze(1)
        return found

    def read(self, places: Tensor | None = None) -> Tensor:
        """What all rows read before rounding (N, D), or those at `places` (n, D)."""
        owner = self.owner
        if owner is not None and places is not None:
            owner = owner[places]
        elif owner is None:
            owner = places
        return self.rows if owner is None else self.rows.index_select(0, owner)

    @cached_property
    def _step_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows to search steps on, their weights and groups.

        The largest rows count as themselves: a sample that misses them finds steps that clip them.
        """
        if int(self.sizes.max()) <= STEP_ROWS:
            return self.rows, self.weights, self.group
        size = self.rows.abs().amax(1)
        chosen, scales = [], []
        start = 0
        for count, alike in groupby(self.sizes.tolist()):  # groups of one size side by side
            groups = len(list(alike))
            part = size[start : start + groups * count].view(groups, count)
            scale = part.new_ones(count)
            places = torch.arange(groups * count, device=part.device).view(groups, count)
            if count > STEP_ROWS:
                largest = part.topk(LARGEST_ROWS, dim=1).indices
                is_left = torch.ones_like(part, dtype=torch.bool).scatter_(1, largest, False)
                rest = is_left.nonzero()[:, 1].view(groups, -1)[:, :: count // STEP_ROWS]
                scale = part.new_ones(LARGEST_ROWS + rest.shape[1])
                scale[LARGEST_ROWS:] = (count - LARGEST_ROWS) / rest.shape[1]
                places = places.gather(1, torch.cat([largest, rest], 1))
            chosen.append(start + places.flatten())
            scales.append(scale.repeat(groups))
            start += groups * count
        rows = torch.cat(chosen)
        weights = self.weights.index_select(0, rows) * torch.cat(scales).to(self.weights).unsqueeze(1)
        return self.rows.index_select(0, rows), weights, self.group[rows]


def _taken(table: Tensor, rows: Tensor) -> Tensor:
    """Rows (N,) of a table; of neighbours no copy is made."""
    if len(rows) and bool((rows.diff() == 1).all()):
        return table[int(rows[0]) : int(rows[-1]) + 1]
    return table.index_select(0, rows)


def _sums(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """values (N, D) -> (count, D): the sum of those of every owner (N,)."""
    return add_rows(values.new_zeros(count, values.shape[1]), owner, values)


def _stored(rows: Tensor, choice: ChoiceLike, steps: Steps) -> tuple[Tensor, Rounding | None]:
    """Rows (N, D) as a choice stores them: a prefix in its precision, zeros behind it; integers unrounded."""
    if choice.parts or choice.precision.startswith("int"):
        return rows, _rounding(choice, steps, rows.shape[1])
    if choice.precision != "fp32":
        rows = rows.to(torch.float16 if choice.precision == "fp16" else torch.bfloat16).to(rows.dtype)
    if choice.dim < rows.shape[1]:
        rows = pad(rows[:, : choice.dim], (0, rows.shape[1] - choice.dim))
    return rows, None


def _rounding(choice: ChoiceLike, steps: Steps, dim: int) -> Rounding:
    columns: list[tuple[float, float, float]] = []
    parts = []
    for start, stop, precision in _pieces(choice):
        grid, step = _grid(precision), steps[precision, start, stop]
        columns += [(grid.lowest, grid.highest, grid.shift)] * (stop - start)
        parts.append(step.unsqueeze(1).expand(-1, stop - start))
    if choice.dim < dim:  # columns that are not stored have one code, 0
        columns += [(0.0, 0.0, 0.0)] * (dim - choice.dim)
        parts.append(parts[0].new_ones(len(parts[0]), dim - choice.dim))
    lowest, highest, shift = torch.tensor(columns, device=parts[0].device).T.contiguous()
    return Rounding(torch.cat(parts, 1), lowest, highest, shift)


def _pieces(choice: ChoiceLike) -> list[tuple[int, int, str]]:
    """First column, the one behind the last, and precision of every part."""
    parts = choice.parts or ((choice.dim, choice.precision),)
    starts = (0, *(stop for stop, _ in parts[:-1]))
    return [(start, stop, precision) for start, (stop, precision) in zip(starts, parts, strict=True)]


def _grid(precision: str) -> Grid:
    bits = BITS[precision]
    return Grid(bits, mid_rise=bits <= 2)
