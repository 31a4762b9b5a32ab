"""Quotient-remainder: every id reads its own pair of shared rows, combined into one vector.

Shi et al., "Compositional embeddings using complementary partitions for memory-efficient recommendation
systems", arXiv:1909.02107. With c collisions, the n ids of a field read one of ceil(n / c) quotient rows and
one of c remainder rows; no two ids read the same pair. `path` (section 4) has a small network of `hidden`
units for every remainder in place of its row: the quotient row passes through it.

Departs from the paper: the ids, which are frequency ranks here, are permuted first, so that frequent ids do
not share a quotient row with one another; quotients are integers at any size; the combination, not each
row, starts with the study's initial_std; the rows of a bag are combined first and pooled then; `concatenate`
gives each part half of the columns, so that the network sees the same dimension; small fields and
every field's out-of-vocabulary row keep rows of their own; the networks of paths are trained as rows are, by
their optimizer and its weight decay.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Int, Method, Table, TableSpec, knob
from autoembed.methods.plans import Fields, fixed_footprint, placed_segments, stored_plan
from autoembed.methods.rows_by_width import RowsByWidth
from autoembed.packed import Packed, pack
from autoembed.plan import FieldPlan, Plan, Segment, Sharing, own
from autoembed.quotient_pairs import QuotientPairs
from autoembed.quotient_paths import QuotientPaths
from autoembed_kernels.pair_rows import PairedSegments, join_pairs, pair_places
from autoembed_kernels.path_mlp import HIDDEN_STEP, path_networks, path_rows, thriftiest_networks
from autoembed_kernels.quotient_remainder import least_stored, remainder_rows
from autoembed_kernels.row_update import RowOptimizer

_SHARING = {
    "add": Sharing.QUOTIENT_ADD,
    "multiply": Sharing.QUOTIENT_MULTIPLY,
    "concatenate": Sharing.QUOTIENT_CONCATENATE,
    "path": Sharing.QUOTIENT_PATH,
}


@dataclass(frozen=True)
class QuotientRemainder(Method):
    """Pairs of rows for the ids of every field with more than `small_rows` rows."""

    collisions: int = knob(
        4, Int(2, 65536, log=True), "ids that share a quotient row (c); at most as many as save bytes"
    )
    combine: str = knob("multiply", Choice(("multiply", "add", "concatenate", "path")), "of the two rows")
    bits: int = knob(32, Choice((16, 32)), "bits of every stored value")
    hidden: int = knob(64, Choice((8, 16, 32, 64)), "hidden units of each network of `path`")
    small_rows: int = knob(200, Int(1, 100_000, log=True), "fields of up to so many rows keep their rows")

    name: ClassVar[str] = "quotient_remainder"
    summary: ClassVar[str] = "every id reads its own pair of shared rows"
    source: ClassVar[str] = "compositional embeddings, arXiv:1909.02107"
    levers: ClassVar[tuple[str, ...]] = ("sharing", "precision")
    trains_small: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, self._fields(spec))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return QuotientRemainderTable(spec, self._fields(spec), generator, optimizer)

    def _fields(self, spec: TableSpec) -> Fields:
        if self.combine == "concatenate" and spec.dim % 2:
            raise ValueError(
                f"quotient_remainder cannot concatenate two halves of dimension {spec.dim}; "
                "take an even dimension, or combine by multiply or add"
            )
        return tuple(
            FieldPlan(field.name, field.rows, spec.dim, self._segments(field.rows, spec.dim))
            for field in spec.stats.fields
        )

    def _segments(self, rows: int, dim: int) -> tuple[Segment, ...]:
        precision = f"fp{self.bits}"
        ids = rows - 1
        if self.combine == "path":
            stored = path_stored_rows(ids, self.collisions, path_rows(self.hidden, dim))
        else:
            stored = stored_rows(ids, self.collisions)
        if rows <= self.small_rows or stored >= ids:
            return (own(0, rows, dim, precision),)
        if self.combine == "path":
            eighths = self.hidden // HIDDEN_STEP
            on_path = Segment(1, rows, Sharing.QUOTIENT_PATH, stored, dim, precision, chunks=eighths)
            return (own(0, 1, dim, precision), on_path)
        paired_dim = dim // 2 if self.combine == "concatenate" else dim
        pairs = Segment(1, rows, _SHARING[self.combine], stored, paired_dim, precision)
        return (own(0, 1, dim, precision), pairs)


def stored_rows(ids: int, collisions: int) -> int:
    """Quotient and remainder rows of `ids` ids: ceil(ids / c) + c, no fewer from sqrt(ids) on."""
    if collisions * collisions >= ids:
        return least_stored(ids)
    return math.ceil(ids / collisions) + collisions


def path_stored_rows(ids: int, collisions: int, network_rows: int) -> int:
    """Quotient rows and networks of `ids` ids: ceil(ids / c) + c network_rows, c no more than is thrifty.

    Beyond it the number of rows would stand for fewer networks, and quotient rows that no id reads.
    """
    networks = min(collisions, thriftiest_networks(ids, network_rows))
    return math.ceil(ids / networks) + networks * network_rows


class QuotientRemainderTable(Table):
    """Trains the quotient rows, and the remainder rows or networks, each with its own optimizer state."""

    start: Tensor
    first: Tensor

    def __init__(
        self, spec: TableSpec, fields: Fields, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        super().__init__(spec)
        self.fields = fields
        placed = list(placed_segments(fields))
        weights = [initial_parts(segment, spec.initial_std, generator) for _, segment, _ in placed]
        self.rows = RowsByWidth(spec, fields, weights, optimizer)
        self.pairs = QuotientPairs([segment for _, segment, _ in placed])
        self.paths = QuotientPaths([segment for _, segment, _ in placed])
        starts = [spec.stats.first_rows[field] + segment.start for field, segment, _ in placed]
        self.register_buffer("start", torch.tensor(starts), persistent=False)
        self.register_buffer("first", torch.tensor([first for *_, first in placed]), persistent=False)

    def values(self, lookup: Lookup) -> Tensor:
        if not self.paths.any_path:
            pairs = pair_places(self._segments(), lookup.rows)
            return join_pairs(self.rows(pairs.stored), pairs)
        segment = torch.searchsorted(self.start, lookup.rows, right=True) - 1
        place = lookup.rows - self.start[segment]
        first, paired, second = self.pairs.split(segment, place)
        first, walk = self.paths.split(segment, first)
        # all parts in one look-up: a row of any is gathered once, and updated once
        stored = [
            self.first[segment] + first,
            self.first[segment[paired]] + second,
            self.first[walk.segment] + walk.rows,
        ]
        begins, seconds, weights = self.rows(torch.cat(stored)).split([len(part) for part in stored])
        return self.paths.join(self.pairs.join(segment, begins, paired, seconds), walk, weights)

    def _segments(self) -> PairedSegments:
        """By the buffers as they are: moving the module replaces them."""
        pairs = self.pairs
        numbers = (pairs.ids, pairs.multiplier, pairs.remainders, pairs.quotients, pairs.dim)
        return PairedSegments(self.start, self.first, pairs.how, *numbers, self.spec.stats.rows)

    def update(self, learning_rate: float) -> None:
        self.rows.update(learning_rate)

    def plan(self) -> Plan:
        return stored_plan(self.spec.profile, self.fields)

    @torch.no_grad()
    def pack(self) -> Packed:
        return pack(self.plan(), self.rows.segment_rows)

    @property
    def training_bytes(self) -> int:
        places = (self.start, self.first, *self.pairs.buffers(), *self.paths.buffers())
        return self.rows.nbytes + sum(b.numel() * b.element_size() for b in places)


def initial_parts(segment: Segment, std: float, generator: torch.Generator) -> Tensor:
    """First values (stored_rows, dim) of a segment: what an id reads has the standard deviation `std`.

    Sums start from parts of std / sqrt(2). Products from quotients of `std` and remainders even in
    +-sqrt(3), whose variance is 1: ids of one quotient row differ from the start, and the quotient
    rows get gradients as large as rows of their own would. Networks keep the deviation of what enters them:
    W1 of variance 2 / dim, which makes up for the half that relu drops, W2 of 1 / hidden, no bias.
    """
    weight = torch.empty(segment.stored_rows, segment.dim)
    part_std = std / math.sqrt(2) if segment.sharing is Sharing.QUOTIENT_ADD else std
    weight.normal_(0.0, part_std, generator=generator)
    if segment.sharing is Sharing.QUOTIENT_MULTIPLY:
        count = remainder_rows(segment.rows, segment.stored_rows)
        weight[-count:].uniform_(-math.sqrt(3), math.sqrt(3), generator=generator)
    if segment.sharing is Sharing.QUOTIENT_PATH:
        hidden = segment.chunks * HIDDEN_STEP
        size = path_rows(hidden, segment.dim)
        count = path_networks(segment.rows, segment.stored_rows, size)
        networks = weight[-count * size :].view(count, size, segment.dim)
        networks.zero_()
        networks[:, :hidden].normal_(0.0, math.sqrt(2 / segment.dim), generator=generator)
        networks[:, hidden : 2 * hidden].normal_(0.0, math.sqrt(1 / hidden), generator=generator)
    return weight
