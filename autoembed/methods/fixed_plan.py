"""A table whose plan is fixed from the start: it trains just the rows that the plan stores.

Most methods are only a rule that writes the plan down; they share this table and the packing. What the
forward pass returns is what the packed table will return: integer codes by fake quantization with a
learned step (`autoembed_kernels.lsq`), half precision by rounding; gradients pass straight through.
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from autoembed.lookup import Lookup
from autoembed.methods.base import Table, TableSpec
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Profile, Segment, Sharing
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.lsq import Grid, fake_quantize, grid_table
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.row_update import RowOptimizer

Fields = tuple[FieldPlan, ...]


def stored_plan(profile: Profile, fields: Fields) -> Plan:
    """The plan as it is stored: profiles with a scale in each row take no shared scales and offsets."""
    if profile.row_scale_bytes == 0:
        return Plan(profile, fields)
    return Plan(
        profile,
        tuple(
            dataclasses.replace(
                field,
                segments=tuple(dataclasses.replace(s, scale=None, offset=None) for s in field.segments),
            )
            for field in fields
        ),
    )


def stored_segment(start: int, stop: int, dim: int, bits: int, step: int, stored_rows: int = 0) -> Segment:
    """Rows [start, stop) of `bits` 1..8, 16 or 32; hashed to `stored_rows` where that is not 0.

    `step` numbers the learned step of integer codes. 1 and 2 bits use the mid-rise grid: it wastes no
    level on one side of zero.
    """
    sharing = Sharing.HASHED if stored_rows else Sharing.OWN
    rows = stored_rows or stop - start
    if bits > 8:
        return Segment(start, stop, sharing, rows, dim, "fp32" if bits == 32 else "fp16")
    return Segment(start, stop, sharing, rows, dim, f"int{bits}", mid_rise=bits <= 2, scale=step)


class FixedPlanTable(Table):
    """Rows under the plan `fields`, in which integer segments number their steps by `scale`.

    `weight` (stored rows, D) are the first values in the order of the plan's segments. `steps` (S,) and
    `offset` (D,) may be given from an earlier training; without, steps are fitted to `weight` and there
    is no offset. `gradient_scales` (S,) default to 1 / sqrt(2^(b-1) n D) with the step's n stored rows.
    """

    def __init__(
        self,
        spec: TableSpec,
        fields: Fields,
        weight: Tensor,
        optimizer: RowOptimizer,
        steps: Tensor | None = None,
        offset: Tensor | None = None,
        gradient_scales: Tensor | None = None,
    ) -> None:
        super().__init__(spec)
        self.fields = fields
        self.address = RowAddress(fields)
        if self.address.zero_row is not None:
            weight = torch.cat([weight, weight.new_zeros(1, spec.dim)])
        self.rows = RowStore(weight, optimizer)
        self.precision = StoredPrecision(
            self._stored_segments(), spec.profile, weight, steps, offset, gradient_scales
        )

    def values(self, lookup: Lookup) -> Tensor:
        unique, weights, inverse = self.rows.gather(self.address(lookup.rows))
        return repeat(self._as_stored(unique, weights), inverse)

    def _as_stored(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Weights (U, D) of stored rows (U,) as the packed table reads them."""
        values: Tensor = self.precision(rows, weights)
        if self.address.zero_row is not None:
            values = values * (rows != self.address.zero_row).unsqueeze(1)
        return values

    def update(self, learning_rate: float) -> None:
        self.rows.update(learning_rate)

    def plan(self) -> Plan:
        return stored_plan(self.spec.profile, self.fields)

    @torch.no_grad()
    def pack(self) -> Packed:
        starts = {(field, s.start): start for field, s, start in self._stored_segments()}
        steps = self.precision.stored_steps().detach()

        def rows_of(field: int, segment: Segment) -> SegmentRows:
            first = starts[field, segment.start]
            rows = torch.arange(first, first + segment.stored_rows, device=self.rows.weight.device)
            values = self._as_stored(rows, self.rows.weight[rows])
            if not segment.is_integer:
                return SegmentRows(values)
            logical = next(s for s in self.fields[field].segments if s.start == segment.start)
            return SegmentRows(values, steps[logical.scale])

        plan = self.plan()
        if plan.scale_count == 0:
            return pack(plan, rows_of)
        offset = self.precision.offset
        return pack(
            plan, rows_of, steps, [offset.detach()] if plan.offset_dims() and offset is not None else None
        )

    @property
    def training_bytes(self) -> int:
        """Rows with their state, addresses, and every parameter with the two moments of Adam."""
        parameters = sum(p.numel() * p.element_size() for p in self.parameters())
        indexes = sum(
            b.numel() * b.element_size() for part in (self.address, self.precision) for b in part.buffers()
        )
        return self.rows.nbytes + indexes + 3 * parameters

    def _stored_segments(self) -> list[tuple[int, Segment, int]]:
        """(field, segment, first row in the store) of every segment that stores rows."""
        return list(_stored_segments(self.fields))


class RowAddress(nn.Module):
    """Global rows -> rows of the store; `zero_row` is where rows read zero, None where none does."""

    def __init__(self, fields: Fields) -> None:
        super().__init__()
        first_stored = {(field, s.start): start for field, s, start in _stored_segments(fields)}
        self.stored_rows = sum(s.stored_rows for field in fields for s in field.segments)
        zero = self.stored_rows
        entries = []
        first_row = 0
        for number, field in enumerate(fields):
            for s in field.segments:
                base = first_stored.get((number, s.start), zero)
                if s.sharing is Sharing.OOV:
                    base = first_stored.get((number, 0), zero)
                own = int(s.sharing is Sharing.OWN)
                hashed = s.stored_rows if s.sharing is Sharing.HASHED else 0
                entries.append((first_row + s.start, base, own, hashed, number, first_row))
            first_row += field.rows
        columns = torch.tensor(entries, dtype=torch.int64).T.contiguous()
        for name, column in zip(
            ("start", "base", "own", "buckets", "field", "first_row"), columns, strict=True
        ):
            self.register_buffer(name, column.clone(), persistent=False)
        self.is_identity = bool(self.own.all())
        self.hashes = bool(self.buckets.any())
        self.zero_row = zero if bool((self.base == zero).any()) else None

    start: Tensor
    base: Tensor
    own: Tensor
    buckets: Tensor
    field: Tensor
    first_row: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """rows (N,) global -> (N,) rows of the store."""
        if self.is_identity:
            return rows
        segment = torch.searchsorted(self.start, rows, right=True) - 1  # (N,)
        stored = self.base[segment] + (rows - self.start[segment]) * self.own[segment]
        if self.hashes:
            buckets = self.buckets[segment]
            row = rows - self.first_row[segment]
            hashed = row_hash(row, self.field[segment], buckets.clamp(min=1))
            stored = torch.where(buckets > 0, self.base[segment] + hashed, stored)
        return stored


class StoredPrecision(nn.Module):
    """Rounds rows of the store to what their segments keep, with one learned step per step number."""

    def __init__(
        self,
        segments: Iterable[tuple[int, Segment, int]],
        profile: Profile,
        weight: Tensor,
        steps: Tensor | None,
        offset: Tensor | None,
        gradient_scales: Tensor | None,
    ) -> None:
        super().__init__()
        segments = list(segments)
        self.profile = profile
        grids: dict[int, Grid] = {}
        parts: dict[int, list[Tensor]] = {}
        for _, s, first in segments:
            if s.is_integer and s.scale is not None:
                grids[s.scale] = Grid(s.bits, s.mid_rise)
                parts.setdefault(s.scale, []).append(weight[first : first + s.stored_rows])
        count = 1 + max(grids, default=-1)
        ordered = [grids.get(number, Grid(1)) for number in range(count)]
        if gradient_scales is None:
            sizes = [sum(part.numel() for part in parts.get(number, ())) for number in range(count)]
            gradient_scales = torch.tensor(
                [(max(size, 1) * 2 ** (g.bits - 1)) ** -0.5 for size, g in zip(sizes, ordered, strict=True)]
            )
        if steps is None:
            steps = torch.tensor(
                [
                    first_step(parts[number], grids[number]) if number in grids else 1.0
                    for number in range(count)
                ]
            )
        self.steps = nn.Parameter(steps[:count].clone()) if count else None
        self.offset = nn.Parameter(offset.clone()) if count and offset is not None else None
        self.kinds = tuple(sorted({_kind(s) for _, s, _ in segments}))
        for name, values, dtype in (
            ("first", [first for _, _, first in segments], torch.int64),
            ("step", [s.scale or 0 for _, s, _ in segments], torch.int64),
            ("kind", [_KINDS.index(_kind(s)) for _, s, _ in segments], torch.int64),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=dtype), persistent=False)
        self.register_buffer("grids", grid_table(ordered), persistent=False)
        self.register_buffer("gradient_scales", gradient_scales[:count], persistent=False)

    first: Tensor
    step: Tensor
    kind: Tensor
    grids: Tensor
    gradient_scales: Tensor

    def stored_steps(self) -> Tensor:
        """The steps (S,), positive, as the profile stores them; gradients pass straight through.

        A scale in the row is kept in half precision, with a bias of up to 2^(b-1) scales beside it in
        FBGEMM's formats: 8 significant bits leave room for that product.
        """
        if self.steps is None:
            return self.grids.new_zeros(0)
        if self.profile.row_scale_bytes == 0:
            return self.steps.abs()
        rounded = self.steps.detach().abs().bfloat16().float().clamp(min=2.0**-14)
        return self.steps.abs() + (rounded - self.steps.detach().abs())

    def forward(self, rows: Tensor, weights: Tensor) -> Tensor:
        """rows (U,) of the store, weights (U, D) -> (U, D) as stored."""
        if self.kinds in ((), ("fp32",)):
            return weights
        segment = torch.searchsorted(self.first, rows, right=True) - 1
        kind = self.kind[segment].unsqueeze(1)
        values = weights
        if "half" in self.kinds:
            rounded = weights + (weights.detach().half().float() - weights.detach())
            values = torch.where(kind == _KINDS.index("half"), rounded, values)
        if "integer" in self.kinds:
            quantized = fake_quantize(
                weights,
                self.stored_steps(),
                self.grids,
                self.gradient_scales,
                self.step[segment],
                self.offset,
            )
            if self.kinds == ("integer",):
                return quantized
            values = torch.where(kind == _KINDS.index("integer"), quantized, values)
        return values


_KINDS = ("fp32", "half", "integer")


def _kind(segment: Segment) -> str:
    if segment.is_integer:
        return "integer"
    return "fp32" if segment.precision == "fp32" else "half"


def _stored_segments(fields: Fields) -> Iterable[tuple[int, Segment, int]]:
    first = 0
    for number, field in enumerate(fields):
        for segment in field.segments:
            if segment.stored_rows:
                yield number, segment, first
                first += segment.stored_rows


def first_step(parts: list[Tensor], grid: Grid) -> float:
    """The first step for weights (n, D): 2 mean|w| / sqrt(2^(b-1)), LSQ's rule."""
    mean = sum(float(part.abs().sum()) for part in parts) / max(1, sum(part.numel() for part in parts))
    return 2 * mean / 2 ** ((grid.bits - 1) / 2)
