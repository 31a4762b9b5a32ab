"""A table whose plan is fixed from the start: it trains just the rows that the plan stores.

Most methods are only a rule that writes the plan down; they share this table and the packing. What the
forward pass returns is what the packed table will return: integer codes by fake quantization with a
learned step (`autoembed_kernels.lsq`), half precision by rounding; gradients pass straight through.
Segments may store a prefix of the vector: the rest of it reads zero and takes no gradient.
"""

import torch
from torch import Tensor

from autoembed.lookup import Lookup
from autoembed.methods.base import Table, TableSpec, initial_rows, unread_rows
from autoembed.methods.plans import Codes, Fields, placed_parts, placed_segments, stored_plan
from autoembed.methods.row_address import RowAddress
from autoembed.methods.stored_precision import StoredPrecision
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import Plan, Segment, Sharing
from autoembed.segment_index import pack_codes
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.lsq import fake_quantized
from autoembed_kernels.row_update import RowOptimizer


class FixedPlanTable(Table):
    """Rows under the plan `fields`, in which integer segments number their steps by `scale`.

    `weight` (stored rows, D) are the first values in the order of the plan's segments. `steps` (S,) and
    `offset` (D,) may be given from an earlier training; without, steps are fitted to `weight` and there
    is no offset. `gradient_scales` (S,) default to 1 / sqrt(2^(b-1) n D) with the step's n stored rows.
    `codes` are those of segments that read a codebook.
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
        codes: Codes | None = None,
    ) -> None:
        super().__init__(spec)
        self.fields = fields
        self.address = RowAddress(fields, codes)
        if self.address.zero_row is not None:
            weight = torch.cat([weight, weight.new_zeros(1, spec.dim)])
        self.rows = RowStore(weight, optimizer)
        self.precision = StoredPrecision(
            placed_segments(self.fields),
            spec.profile,
            weight,
            steps,
            offset,
            gradient_scales,
            tails=[part for part in placed_parts(self.fields) if part.column],
        )
        widths = stored_widths(self.fields)
        self.has_prefixes = min(widths, default=spec.dim) < spec.dim
        columns = torch.arange(spec.dim if self.has_prefixes else 0)
        masks = columns < torch.tensor(widths, dtype=torch.int64).unsqueeze(1)
        self.register_buffer("masks", masks.float(), persistent=False)

    masks: Tensor

    def tabulate(self) -> None:
        """Look places up from now on, at 8 bytes per id and per stored row: worth it for short steps."""
        self.address.tabulate()
        self.precision.tabulate(len(self.rows.weight))

    def values(self, lookup: Lookup) -> Tensor:
        rows = self.address(lookup.rows)
        if self.precision.is_float32 and self.address.zero_row is None and not self.has_prefixes:
            return self.rows.look_up(rows)
        unique, weights, inverse = self.rows.gather(rows)
        return repeat(self._as_stored(unique, weights), inverse)

    def _as_stored(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Weights (U, D) of stored rows (U,) as the packed table reads them."""
        values: Tensor = self.precision(rows, weights)
        if self.address.zero_row is not None:
            values = values * (rows != self.address.zero_row).unsqueeze(1)
        if self.has_prefixes:
            values = values * self.masks.index_select(0, self.precision.segment_of(rows))
        return values

    def update(self, learning_rate: float) -> None:
        self.rows.update(learning_rate)

    def plan(self) -> Plan:
        return stored_plan(self.spec.profile, self.fields)

    @torch.no_grad()
    def pack(self) -> Packed:
        plan = self.plan()
        steps = self.precision.stored_steps()
        learned = self.precision.offset
        offset = None if learned is None else learned.detach()
        parts = placed_parts(self.fields)

        def rows_of(field: int, segment: Segment) -> SegmentRows:
            part = next(parts)  # `pack` asks in the same order
            columns = slice(part.column, part.column + segment.dim)
            values = self.rows.weight[part.first : part.first + segment.stored_rows, columns]
            number = part.segment.scale
            index = None
            if segment.sharing is Sharing.CODEBOOK:
                index = pack_codes(segment, self.address.codes_of(field, segment.start).cpu())
            if not segment.is_integer or number is None:
                return SegmentRows(values, index=index)
            step = steps[number : number + 1]
            grid = self.precision.grids[number : number + 1]
            start = None if offset is None else offset[columns]
            return SegmentRows(fake_quantized(values.contiguous(), step, start, grid, None), step, index)

        offsets = [offset] if offset is not None and plan.offset_dims() else []
        return pack(plan, rows_of, steps, offsets)

    @property
    def training_bytes(self) -> int:
        """Rows with their state, addresses, and every parameter with the two moments of Adam."""
        parameters = sum(p.numel() * p.element_size() for p in self.parameters())
        indexes = sum(
            b.numel() * b.element_size() for part in (self.address, self.precision) for b in part.buffers()
        )
        return self.rows.nbytes + indexes + 3 * parameters


def stored_widths(fields: Fields) -> list[int]:
    """Of every segment that stores rows, the dimensions it stores, tails included."""
    widths: list[int] = []
    for part in placed_parts(fields):
        if part.column == 0:
            widths.append(0)
        widths[-1] += part.segment.dim
    return widths


def fresh_table(
    spec: TableSpec, fields: Fields, generator: torch.Generator, optimizer: RowOptimizer
) -> FixedPlanTable:
    """A table of these field plans whose stored rows start at random, or at zero where none trains them."""
    address = RowAddress(fields)
    weight = initial_rows(spec, address.stored_rows, generator)
    unread = unread_rows(spec.stats)
    segment = torch.searchsorted(address.start, unread, right=True) - 1
    alone = address.own[segment] == 1
    # row 0 of a field stands for the ids that are cut, and they train it
    firsts = torch.tensor(
        [
            first
            for first, field, stats in zip(spec.stats.first_rows, fields, spec.stats.fields, strict=True)
            if any(s.sharing is Sharing.OOV and stats.counts[s.start : s.stop].any() for s in field.segments)
        ],
        dtype=torch.int64,
    )
    weight[address(unread[alone & ~torch.isin(unread, firsts)])] = 0.0
    return FixedPlanTable(spec, fields, weight, optimizer)
