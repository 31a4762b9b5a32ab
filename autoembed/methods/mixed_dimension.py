"""Mixed dimensions: rows that are looked up often get wide vectors, rare rows narrow ones.

Ginart et al., "Mixed dimension embeddings with application to memory-efficient recommendation systems",
arXiv:1909.11810. A block of n rows that takes k look-ups has popularity p = k / n; its dimension is

    d = D (p / max p)^alpha,    rounded to a whole number of at least 1, then maybe to a power of two

A block is a whole field (the paper's rule for click models: p = 1 / n where every example looks up one id)
or a frequency group of a field (its rule inside a table). The vectors of a field are pooled first and then
mapped to the output dimension by the field's matrix, Xavier-uniform at the start.

Departs from the paper: popularity counts the train split's look-ups, which tells fields of several ids
apart, and a block without any counts as one; `keep` bounds the bytes, projections, index and all, and
raises alpha just until it is met (bisection over the finitely many alphas at which a dimension changes);
a field keeps the full width where its matrix would cost more than narrow rows save, and takes the
wider of two dimensions whose rows cost the same bytes; groups of one field share one matrix, and none
where its widest group has the full width (the others are then prefixes, behind them zeros); matrices are
stored, and read while training, in half precision.
"""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from autoembed.budget import Footprint
from autoembed.data.batch import Batch
from autoembed.lookup import Lookup, look_up
from autoembed.methods.base import Choice, Float, Method, Table, TableSpec, knob, unread_rows
from autoembed.methods.dimension_plans import Block, Blocks, DimensionPlans
from autoembed.methods.plans import Fields, fixed_footprint, stored_plan
from autoembed.methods.rows_by_width import RowsByWidth
from autoembed.packed import Packed, pack
from autoembed.plan import Plan, Profile
from autoembed.stats import Stats, frequency_groups
from autoembed_kernels.row_update import RowOptimizer

LAST = 500  # alphas that are tried one by one; what falls and rises again does so within fewer


@dataclass(frozen=True)
class MixedDimension(Method):
    """Dimensions by popularity: of fields, or of frequency groups inside them."""

    alpha: float = knob(0.1, Float(0.0, 1.0), "how fast the dimension falls with popularity; 0 is uniform")
    keep: float = knob(1.0, Float(1e-4, 1.0, log=True), "raise alpha until this share of full bytes is met")
    blocks: str = knob("field", Choice(("field", "group")), "what has one dimension")
    rounding: str = knob("power_of_two", Choice(("power_of_two", "nearest")), "of dimensions")
    bits: int = knob(32, Choice((2, 4, 8, 16, 32)), "bits of every stored value")

    name: ClassVar[str] = "mixed_dimension"
    summary: ClassVar[str] = "popular rows are wide, rare rows narrow and projected"
    source: ClassVar[str] = "mixed dimension embeddings, arXiv:1909.11810"
    levers: ClassVar[tuple[str, ...]] = ("dimension", "precision")
    trains_small: ClassVar[bool] = True
    ranks: ClassVar[tuple[str, str]] = ("blocks", "group")

    def footprint(self, spec: TableSpec) -> Footprint:
        return fixed_footprint(spec, self._fields(spec))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        return MixedDimensionTable(spec, self._fields(spec), generator, optimizer)

    def _fields(self, spec: TableSpec) -> Fields:
        """The plan at the smallest alpha from `alpha` on that bisection finds to meet `keep`.

        Bytes fall as alpha grows, but for the padding of narrow rows and matrices that come and go. Where
        bisection ends above the bound, it is the first of the last alphas that meets it, or else the one
        of fewest bytes.
        """
        rule = Rule(
            tuple(map(tuple, blocks_of(spec.stats, self.blocks))),
            *(spec.profile, spec.dim, self.bits, self.rounding == "power_of_two"),
        )
        plans = rule.plans()
        cuts = plans.cuts(rule.dims(self.alpha))
        size = plans.bytes(cuts)
        allowed = self.keep * sum(4 * field.rows * spec.dim for field in spec.stats.fields)
        if self.keep == 1.0 or size <= allowed:
            return plans.fields(cuts, spec)
        alphas = [a for a in _changes(rule.popularity, spec.dim) if a > self.alpha]
        low, high = 0, len(alphas)  # alphas[high] fits, or none does and high is behind the last
        while low < high:
            middle = (low + high) // 2
            if plans.bytes(plans.cuts(rule.dims(alphas[middle]))) <= allowed:
                high = middle
            else:
                low = middle + 1
        best = self.alpha
        if high < len(alphas):
            best = alphas[high]
        else:
            last = (*alphas, 1.0)[-LAST:]
            sizes = (size, *_sizes(rule, last))
            fits = (place for place, of in enumerate(sizes) if of <= allowed)
            best = (self.alpha, *last)[next(fits, sizes.index(min(sizes)))]
        return plans.fields(plans.cuts(rule.dims(best)), spec)


@dataclass(frozen=True)
class Rule:
    """What the dimensions of a table follow from, but for alpha, and how it is stored."""

    blocks: Blocks
    profile: Profile
    dim: int
    bits: int
    powers_of_two: bool

    @property
    def popularity(self) -> list[float]:
        """Of all blocks."""
        return [p for field in self.blocks for *_, p in field]

    def dims(self, alpha: float) -> list[int]:
        """Of all blocks."""
        return popularity_dims(self.popularity, self.dim, alpha, self.powers_of_two)

    def plans(self) -> DimensionPlans:
        return DimensionPlans(self.blocks, self.profile, self.dim, self.bits)


@lru_cache(maxsize=8)
def _sizes(rule: Rule, alphas: tuple[float, ...]) -> tuple[int, ...]:
    """Bytes at every alpha; bounds that no alpha meets ask for the same ones."""
    plans = rule.plans()
    return tuple(plans.bytes(plans.cuts(rule.dims(alpha))) for alpha in alphas)


def blocks_of(stats: Stats, kind: str) -> list[list[Block]]:
    """Per field its blocks: the whole field ("field"), or its frequency groups ("group")."""
    blocks = []
    for field in stats.fields:
        bounds = (0, field.rows) if kind == "field" else frequency_groups(field.counts)
        blocks.append(
            [
                (start, stop, max(int(field.counts[start:stop].sum()), 1) / (stop - start))
                for start, stop in itertools.pairwise(bounds)
            ]
        )
    return blocks


def popularity_dims(popularity: list[float], dim: int, alpha: float, powers_of_two: bool) -> list[int]:
    """The rule: d = dim (p / max p)^alpha, rounded; 1 <= d <= dim."""
    top = max(popularity)
    dims = {p: max(1, math.floor(dim * (p / top) ** alpha + 0.5)) for p in set(popularity)}
    if powers_of_two:
        rounded = {d: min(dim, 2 ** math.floor(math.log2(d) + 0.5)) for d in set(dims.values()) - {dim}}
        dims = {p: rounded.get(d, d) for p, d in dims.items()}
    return [dims[p] for p in popularity]


def _changes(popularity: list[float], dim: int) -> list[float]:
    """The alphas in (0, 1] just behind which the dimension of some block changes, ascending."""
    top = max(popularity)
    steps = [math.log(dim / (d - 0.5)) for d in range(2, dim + 1)]
    rates = {math.log(top / p) for p in popularity} - {0.0}
    found = {step / rate * (1 + 1e-12) for rate in rates for step in steps}
    return sorted(alpha for alpha in found if alpha <= 1.0)


class MixedDimensionTable(Table):
    """Rows of their own width; the pooled vectors of a field go through its matrix, if it has one."""

    def __init__(
        self, spec: TableSpec, fields: Fields, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        super().__init__(spec)
        self.fields = fields
        placed = [
            (first, segment)
            for first, field in zip(spec.stats.first_rows, fields, strict=True)
            for segment in field.segments
        ]
        weights = [
            torch.empty(s.stored_rows, s.dim).normal_(0.0, spec.initial_std, generator=generator)
            for _, s in placed
        ]
        unread = unread_rows(spec.stats)
        for weight, (first, segment) in zip(weights, placed, strict=True):
            local = unread - first - segment.start
            weight[local[(local >= 0) & (local < segment.stored_rows)]] = 0.0
        self.rows = RowsByWidth(spec, fields, weights, optimizer)
        self.projected = [number for number, field in enumerate(fields) if field.projection_dim]
        # rows of a matrix behind the field's width are zero, read zeros, and so stay zero
        width = max((field.projection_dim for field in fields), default=0)
        matrices = torch.zeros(len(self.projected), width, spec.dim)
        for matrix, number in zip(matrices, self.projected, strict=True):
            own_width = fields[number].projection_dim
            nn.init.xavier_uniform_(matrix[:own_width], generator=generator)
        self.matrices = nn.Parameter(matrices) if self.projected else None

    def forward(self, batch: Batch) -> Tensor:
        lookup = look_up(batch, self.first_rows)
        pooled = lookup.pool(self.values(lookup))  # (B, F, D)
        if self.matrices is None:
            return pooled
        matrices = self._stored_matrices()
        prefixes = pooled[:, self.projected, : matrices.shape[1]]
        mapped = torch.einsum("bfw,fwd->bfd", prefixes, matrices)
        places = torch.tensor(self.projected, device=pooled.device)
        return pooled.index_copy(1, places, mapped)

    def values(self, lookup: Lookup) -> Tensor:
        """The rows (N, D) before projection, zeros behind their own width."""
        result: Tensor = self.rows(lookup.rows)  # every row is its own, in plan order
        return result

    def _stored_matrices(self) -> Tensor:
        """(projected fields, W, D), rounded as they will be stored; gradients pass straight through."""
        assert self.matrices is not None
        matrices = self.matrices.detach()
        return self.matrices + (matrices.half().float() - matrices)

    def update(self, learning_rate: float) -> None:
        self.rows.update(learning_rate)

    def plan(self) -> Plan:
        return stored_plan(self.spec.profile, self.fields)

    @torch.no_grad()
    def pack(self) -> Packed:
        projections = []
        if self.matrices is not None:
            widths = [self.fields[number].projection_dim for number in self.projected]
            projections = [m[:w] for m, w in zip(self.matrices, widths, strict=True)]
        return pack(self.plan(), self.rows.segment_rows, self.rows.steps(), projections=projections)

    @property
    def training_bytes(self) -> int:
        learned = 0 if self.matrices is None else 3 * 4 * self.matrices.numel()
        return self.rows.nbytes + learned
