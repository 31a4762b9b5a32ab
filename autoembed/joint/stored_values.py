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
from typing import Protocol

import torch
from torch import Tensor

from autoembed.joint.codebooks import Codebooks
from autoembed.joint.sensitivity import Sensitivity
from autoembed.plan import BITS
from autoembed_kernels.lsq import Grid
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.step_errors import step_errors

STEP_POINTS = 16
STEP_ROWS = 128  # rows of a group that its step is searched on, and as many of the largest as
LARGEST_ROWS = 32
TOGETHER = 1 << 16  # rows of several groups that are worked out at once
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
        self.values = weight[self.global_rows]  # (N, D)
        self.second = sensitivity.second[self.global_rows]
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
        members: dict[tuple[str, float, int], list[int]] = {}
        for number, choice in enumerate(choices):
            if choice.sharing == "zero":
                yield number, self.row_0[group]
            else:
                members.setdefault((choice.sharing, choice.ratio, choice.code_bits), []).append(number)
        for numbers in members.values():
            alike = [choices[number] for number in numbers]
            if alike[0].sharing == "codebook":
                yield from zip(numbers, self._coded(alike, places), strict=True)
                continue
            shared = self.shared(alike[0])
            if shared.owner is None:
                yield from zip(numbers, shared.stored(alike, places), strict=True)
                continue
            owner = shared.owner if places is None else shared.owner[places]
            for number, stored in zip(numbers, shared.stored(alike), strict=True):
                yield number, stored[owner]

    def _coded(self, choices: Sequence[ChoiceLike], places: Tensor | None) -> Iterator[Tensor]:
        """Of choices that read codebooks of one size, what the rows read, field by field."""
        field = self.field if places is None else self.field[places]
        values = self.values if places is None else self.values[places]
        bits = choices[0].code_bits
        parts = []
        for number in torch.unique(field).tolist():
            chosen = (field == number).nonzero().squeeze(1)
            codebook = self.codebooks.of(number)[bits]
            parts.append((chosen, codebook, self.codebooks.metrics[number].nearest(values[chosen], codebook)))
        for choice in choices:
            read = torch.zeros_like(values)
            for chosen, codebook, codes in parts:
                prefix = codebook[:, : choice.dim]
                step = prefix.abs().max().clamp(min=1e-8) / 127
                stored = codebook.new_zeros(codebook.shape)
                stored[:, : choice.dim] = _quantized(prefix, step, Grid(8))
                read[chosen] = stored[codes]
            yield read

    def shared(self, choice: ChoiceLike) -> "SharedRows":
        """The rows that the choice's sharing leaves, before rounding."""
        groups = len(self.sizes)
        if choice.sharing == "own":
            return SharedRows(self.values, self.weights, self.group, self.sizes, None)
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

    def stored(self, choices: Sequence[ChoiceLike], places: Tensor | None = None) -> Iterator[Tensor]:
        """Of every choice, the rows (m, D), or those at `places`: a prefix in the choice's precision and
        zeros behind it.
        """
        steps = self.steps(choices)
        rows = self.rows if places is None else self.rows[places]
        group = self.group if places is None else self.group[places]
        for choice in choices:
            values = rows
            if choice.parts:
                values = torch.zeros_like(rows)
                for start, stop, precision in _pieces(choice):
                    step = steps[precision, start, stop][group].unsqueeze(1)
                    values[:, start:stop] = _quantized(rows[:, start:stop], step, _grid(precision))
            elif choice.precision.startswith("int"):
                step = steps[choice.precision, 0, choice.dim][group].unsqueeze(1)
                values = _quantized(values, step, _grid(choice.precision))
            elif choice.precision != "fp32":
                half = torch.float16 if choice.precision == "fp16" else torch.bfloat16
                values = values.to(half).to(values.dtype)
            if choice.dim < values.shape[1] and not choice.parts:
                values = values.clone() if values is rows else values
                values[:, choice.dim :] = 0.0
            yield values

    def steps(self, choices: Sequence[ChoiceLike]) -> dict[tuple[str, int, int], Tensor]:
        """(G,) steps of the integer choices, by precision and first and last column."""
        asked: dict[tuple[str, int], set[int]] = {}
        for choice in choices:
            for start, stop, precision in _pieces(choice):
                if precision.startswith("int"):
                    asked.setdefault((precision, start), set()).add(stop)
        if not asked:
            return {}
        rows, weights, group = self._step_rows()
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

    def _step_rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows to search steps on, their weights and groups.

        The largest rows count as themselves: a sample that misses them finds steps that clip them.
        """
        size = self.rows.abs().amax(1).double()
        order = (
            (self.group + 0.5 - 0.5 * size / size.max().clamp(min=1e-30)).argsort()
            if len(size)
            else self.group
        )
        starts = torch.cumsum(self.sizes, 0) - self.sizes
        group = self.group  # ascending: the same before and after
        rank = torch.arange(len(order), device=order.device) - starts[group]
        stride = (self.sizes // STEP_ROWS).clamp(min=1)
        rest = ((self.sizes - LARGEST_ROWS).clamp(min=1) + stride - 1) // stride
        share = (self.sizes - LARGEST_ROWS) / rest
        counts_itself = (self.sizes <= STEP_ROWS)[group] | (rank < LARGEST_ROWS)
        kept = counts_itself | ((rank - LARGEST_ROWS) % stride[group] == 0)
        chosen, group = order[kept], group[kept]
        weights = self.weights[chosen] * torch.where(counts_itself[kept], 1.0, share[group]).unsqueeze(1)
        return self.rows[chosen], weights, group


def read_plans(
    weight: Tensor,
    sensitivity: Sensitivity,
    groups: Sequence[GroupLike],
    choices: Sequence[ChoiceLike],
    plans: Tensor,
    rows: Tensor,
    codebooks: Codebooks | None = None,
) -> Tensor:
    """(P, K, D): what some rows would read under plans, rows of no group as they are.

    plans (P, G): the choice's number of every group; rows (K,): global rows, ascending. Groups are taken with
    all their rows, a few groups at a time. `codebooks` of these weights are made where none are given.
    """
    codebooks = codebooks or Codebooks(weight, sensitivity)
    out = weight[rows].repeat(len(plans), 1, 1)
    for numbers in _batches(groups):
        these = [groups[number] for number in numbers]
        stored = GroupRows(weight, sensitivity, these, codebooks=codebooks)
        where = torch.searchsorted(rows, stored.global_rows).clamp(max=max(len(rows) - 1, 0))
        places = (rows[where] == stored.global_rows).nonzero().squeeze(1) if len(rows) else where[:0]
        if not len(places):
            continue
        chosen = plans[:, numbers].to(weight.device)
        used = torch.unique(chosen)
        of_rows = chosen[:, stored.group[places]]  # (P, n)
        for number, read in stored.read([choices[c] for c in used.tolist()], places):
            plan, place = (of_rows == used[number]).nonzero(as_tuple=True)
            out[plan, where[places[place]]] = read[place]
    return out


def _batches(groups: Sequence[GroupLike]) -> Iterator[list[int]]:
    """Numbers of the groups in turn, as many together as have `TOGETHER` rows."""
    batch: list[int] = []
    size = 0
    for number, group in enumerate(groups):
        rows = group.stop - group.start
        if batch and size + rows > TOGETHER:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += rows
    if batch:
        yield batch


def _sums(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """values (N, D) -> (count, D): the sum of those of every owner (N,)."""
    return values.new_zeros(count, values.shape[1]).index_add_(0, owner, values)


def _quantized(values: Tensor, step: Tensor, grid: Grid) -> Tensor:
    codes = values / step
    if grid.shift:
        codes = codes.sub_(grid.shift)
    codes = codes.round_().clamp_(grid.lowest, grid.highest)
    if grid.shift:
        codes = codes.add_(grid.shift)
    return codes.mul_(step)


def _pieces(choice: ChoiceLike) -> list[tuple[int, int, str]]:
    """First column, the one behind the last, and precision of every part."""
    parts = choice.parts or ((choice.dim, choice.precision),)
    starts = (0, *(stop for stop, _ in parts[:-1]))
    return [(start, stop, precision) for start, (stop, precision) in zip(starts, parts, strict=True)]


def _grid(precision: str) -> Grid:
    bits = BITS[precision]
    return Grid(bits, mid_rise=bits <= 2)
