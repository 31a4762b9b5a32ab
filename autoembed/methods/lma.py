"""LMA: ids that are met in the same examples share values of one flat pool.

Desai et al., "Semantically constrained memory allocation (SCMA) for embedding in efficient recommendation
systems", arXiv:2103.06124 (LMA: LSH-based memory allocation). Every frequent id has a signature of sixteen
4-bit min-hashes of the examples that contain it; value k of its vector lies in the pool where a hash of some
of these keys, chosen by k, says. The more two ids overlap, the more values they share.

What the paper leaves open, or we do otherwise: ids with fewer than `least` look-ups are placed by a hash of
their number, as in ROBE, and store no signature, and so is every out-of-vocabulary row; `keys` keys place a
value (the authors' program takes 8); `over="partners"` compares ids by the ids of other fields they are met
with (`autoembed.signatures` says why); values may be placed in blocks; there is no hash of the sign, which
the authors' program for LMA has not either; values start from N(0, initial_std^2) as everywhere here.
Signatures are part of the file, 8 bytes each.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.companions import Companion
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Float, Int, Method, Table, TableSpec, knob
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, Sharing, placed, plan_bytes
from autoembed.pool_address import PoolAddress
from autoembed.signatures import Signatures, signed_count
from autoembed.stats import FieldStats
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import dedupe, repeat
from autoembed_kernels.row_update import RowOptimizer
from autoembed_kernels.signature_pool import MAX_KEYS, stored_signatures


@dataclass(frozen=True)
class Lma(Method):
    """One pool for all ids, in which similar ids meet."""

    ratio: float = knob(1 / 16, Float(1e-4, 1.0, log=True), "values of the pool per value of full precision")
    keys: int = knob(4, Int(1, MAX_KEYS), "keys of a signature that place a value; more share less")
    over: str = knob("examples", Choice(("examples", "partners")), "sets by which ids are compared")
    least: int = knob(8, Int(1, 1_000_000, log=True), "look-ups from which on an id has a signature")
    examples: int = knob(1_000_000, Int(1000, 1_000_000_000, log=True), "examples of train that are read")
    block: int = knob(1, Choice((1, 2, 4, 8, 16, 32)), "values that lie together; at most the dimension")
    bits: int = knob(32, Choice((16, 32)), "bits of every stored value")

    name: ClassVar[str] = "lma"
    summary: ClassVar[str] = "ids met in the same examples share values of one pool"
    source: ClassVar[str] = "LMA, arXiv:2103.06124"
    levers: ClassVar[tuple[str, ...]] = ("sharing", "precision")
    trains_small: ClassVar[bool] = True
    ranks: ClassVar[bool] = True

    def companions(self) -> tuple[Companion, ...]:
        return (self.signatures,)

    @property
    def signatures(self) -> Signatures:
        """What is asked of the train split."""
        return Signatures(self.over, self.examples, self.least)

    def footprint(self, spec: TableSpec) -> Footprint:
        size = plan_bytes(self.plan(spec)).total
        return Footprint(size, size)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        """Raises ValueError where `spec` brings no signatures."""
        if self.signatures not in spec.companions:
            raise ValueError(
                f"lma needs {self.signatures} of the train split, the TableSpec brings "
                f"{[str(one) for one in spec.companions]}; fill it with autoembed.companions.companion_of"
            )
        return LmaTable(spec, self.plan(spec), spec.companions[self.signatures], generator, optimizer)

    def plan(self, spec: TableSpec) -> Plan:
        """All segments read the pool, those of frequent ids by signature; the first one stores it."""
        block = min(self.block, spec.dim)
        blocks = math.ceil(self.ratio * spec.stats.rows * spec.dim / block)
        fields = []
        for number, field in enumerate(spec.stats.fields):
            segments = self._segments(field, block, 0 if number else blocks)
            fields.append(FieldPlan(field.name, field.rows, spec.dim, segments))
        return Plan(spec.profile, tuple(fields))

    def _segments(self, field: FieldStats, block: int, stored: int) -> tuple[Segment, ...]:
        precision = f"fp{self.bits}"
        stop = 1 + signed_count(field.counts, self.least)
        if stop == 1:
            return (Segment(0, field.rows, Sharing.POOL, stored, block, precision),)
        unknown = Segment(0, 1, Sharing.POOL, stored, block, precision)
        signed = Segment(1, stop, Sharing.SIGNATURE_POOL, 0, block, precision, chunks=self.keys)
        rare = (Segment(stop, field.rows, Sharing.POOL, 0, block, precision),) if stop < field.rows else ()
        return (unknown, signed, *rare)


class LmaTable(Table):
    """Trains the values of the pool, each with its own optimizer state. signatures (R,) int64 of all rows."""

    first: Tensor

    def __init__(
        self,
        spec: TableSpec,
        plan: Plan,
        signatures: Tensor,
        generator: torch.Generator,
        optimizer: RowOptimizer,
    ) -> None:
        super().__init__(spec)
        assert plan.pool is not None
        self._plan = plan
        self.segment = plan.pool
        starts, words = [], [signatures[:0]]
        for field, segment, _ in placed(plan):
            starts.append(spec.stats.first_rows[field] + segment.start)
            if segment.sharing is Sharing.SIGNATURE_POOL:
                words.append(signatures[starts[-1] : starts[-1] + segment.rows])
        self.register_buffer("first", torch.tensor(starts), persistent=False)
        self.address = PoolAddress(plan, stored_signatures(torch.cat(words)), spec.dim)
        slots = self.segment.stored_rows * self.segment.dim
        pool = torch.empty(slots, 1).normal_(0.0, spec.initial_std, generator=generator)
        self.pool = RowStore(pool, optimizer)

    def values(self, lookup: Lookup) -> Tensor:
        rows, repeats = dedupe(lookup.rows, self.spec.stats.rows)
        segment = torch.searchsorted(self.first, rows, right=True) - 1
        begins = self.address(segment, rows - self.first[segment])  # (U, blocks)
        block = torch.arange(self.segment.dim, device=rows.device)
        slots = (begins.unsqueeze(2) + block).flatten(1)[:, : self.spec.dim]  # (U, D)
        weights = self.pool.look_up(slots.flatten())
        if self.segment.precision == "fp16":
            weights = weights + (weights.detach().half().float() - weights.detach())
        return repeat(weights.view(len(rows), self.spec.dim), repeats)

    def update(self, learning_rate: float) -> None:
        self.pool.update(learning_rate)

    def plan(self) -> Plan:
        return self._plan

    def pack(self) -> Packed:
        at = 0

        def rows_of(_: int, segment: Segment) -> SegmentRows:
            nonlocal at
            index = None
            if segment.sharing is Sharing.SIGNATURE_POOL:
                index = self.address.segment_index[at : at + 8 * segment.rows]
                at += 8 * segment.rows
            weight = self.pool.weight if segment.stored_rows else self.pool.weight[:0]
            return SegmentRows(weight.view(-1, segment.dim), index=index)

        return pack(self._plan, rows_of)

    @property
    def training_bytes(self) -> int:
        """The pool with its state, and the places, signatures included."""
        places = (self.first, *self.address.buffers())
        return self.pool.nbytes + sum(b.numel() * b.element_size() for b in places)
