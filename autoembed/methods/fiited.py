"""FIITED: chunks of dimensions compete for a pool of fixed size while the model trains.

"Fine-grained in-training embedding dimension optimization", arXiv:2401.04408. A vector is cut into chunks;
a virtual table of pointers says which are held in a physical pool (`autoembed_kernels.chunk_store`), by a
utility of look-ups x gradient norm that decays. What is outside reads zero, keeps gaining utility, and grows
back. Training holds no dense table: pool, optimizer state, pointers and utilities are all.

Departs from the paper, which begins with all chunks, unless `schedule` says so: the pool has its final size
from the first step and is filled by the ids that come first, so that the peak is never the dense table's;
with a schedule it has room for all chunks at first and shrinks, linearly in steps, and so does what is held.
A chunk grows from zero in a place that another gave up, from small random weights in one that nobody held.
Rounds come every 10 steps for the first 100 and every `interval` steps after, as TorchRec's ITEP does with
other numbers. Fields share one pool and one threshold.
Their utilities are compared as they are; with `by_field`, divided by the 95th percentile of those of their
field, as AdaEmbed divides them. Exported, every field carries a bitmap or a list of the chunks that are held,
which takes fewer bytes.
Where ids are hashed without a vocabulary, only those that were met have pointers and utilities, so that there
may be far more hashed rows than ids (the paper's large space of virtual addresses).
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Choice, Float, Int, Method, Table, TableSpec, knob
from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import FieldPlan, Plan, Segment, Sharing, directory_bytes, plan_bytes
from autoembed_kernels.chunk_store import ChunkStore
from autoembed_kernels.dedupe import Repeats, dedupe
from autoembed_kernels.listed_marks import listed_bytes, pack_listed
from autoembed_kernels.marked_bits import marks_bytes, pack_marks
from autoembed_kernels.row_update import RowOptimizer

EARLY_STEPS, EARLY_INTERVAL = 100, 10


@dataclass(frozen=True)
class Fiited(Method):
    """Chunks gain and lose their places by utility."""

    keep: float = knob(0.1, Float(1e-4, 1.0, log=True), "places of the pool per chunk of full precision")
    chunks: int = knob(4, Choice((1, 2, 4, 8)), "chunks of a vector; at most what divides the dimension")
    interval: int = knob(20, Int(1, 100_000, log=True), "steps between two rounds of eviction and admission")
    decay: float = knob(0.98, Float(0.0, 1.0), "what is left of utilities after a round; 0: next to nothing")
    margin: float = knob(0.1, Float(0.0, 0.9), "distance to the threshold within which chunks stay put")
    bits: int = knob(32, Choice((16, 32)), "bits of every stored value")
    schedule: int = knob(
        0,
        Int(0, 1_000_000),
        "steps in which the pool shrinks from all chunks to `keep`; 0: small from the start",
    )
    by_field: int = knob(
        0,
        Choice((0, 1)),
        "1: utilities are divided by the 95th percentile of their field's before fields are compared",
    )

    name: ClassVar[str] = "fiited"
    summary: ClassVar[str] = "chunks of dimensions compete for a pool while training"
    source: ClassVar[str] = "FIITED, arXiv:2401.04408"
    levers: ClassVar[tuple[str, ...]] = ("rows", "dimension", "precision")
    trains_small: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        """Between a pool of which nothing is used and one that is full."""
        self._refuse_hashed(spec)
        chunks = self._chunks(spec)
        places = left = self._places(spec)
        held = []
        for field in spec.stats.fields:
            held.append(max(1, min(left, field.rows * chunks)))  # marks of none would be no segment
            left = max(0, left - held[-1])
        empty = plan_bytes(self.plan(spec, [0] * len(held))).total
        full = plan_bytes(self.plan(spec, held))
        # however places fall to fields, marks take no more than bitmaps, and than lists of 2 bytes a chunk
        marks = [field.rows * chunks for field in spec.stats.fields]
        most = min(sum(map(marks_bytes, marks)), sum(listed_bytes(n, 0) for n in marks) + 2 * places)
        index = directory_bytes(self.plan(spec, [1] * len(held))) + most
        # how chunks fall to fields moves digits of the header and the padding of segments, too
        slack = len(held) * (spec.profile.table_align - 1) + 32
        return Footprint(empty, full.total - full.index + index + slack)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> "FiitedTable":
        self._refuse_hashed(spec)
        draws = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        # of a vocabulary all rows are met, and need no numbers of entries
        virtual = not all(field.ranked for field in spec.stats.fields)
        every = spec.stats.rows * self._chunks(spec)
        if self.schedule and every >= 2**31:
            raise ValueError(
                f"under a schedule fiited begins with a pool of all {every} chunks, 2^31 - 1 are the most: "
                "leave `schedule` at 0"
            )
        store = ChunkStore(
            spec.stats.rows,
            self._chunks(spec),
            spec.dim,
            every if self.schedule else self._places(spec),
            optimizer,
            spec.initial_std,
            draws,
            virtual=virtual,
        )
        return FiitedTable(self, spec, store)

    def plan(self, spec: TableSpec, held: list[int]) -> Plan:
        """The plan of fields that hold so many chunks; a field of none reads zero."""
        chunks = self._chunks(spec)
        fields = []
        for field, stored in zip(spec.stats.fields, held, strict=True):
            segment = Segment(0, field.rows, Sharing.ZERO)
            if stored:
                marks = field.rows * chunks
                is_listed = listed_bytes(marks, stored) < marks_bytes(marks)
                segment = Segment(
                    0,
                    field.rows,
                    Sharing.LISTED if is_listed else Sharing.MARKED,
                    stored,
                    spec.dim // chunks,
                    f"fp{self.bits}",
                    chunks=chunks,
                )
            fields.append(FieldPlan(field.name, field.rows, spec.dim, (segment,)))
        return Plan(spec.profile, tuple(fields))

    def _refuse_hashed(self, spec: TableSpec) -> None:
        """Where entries are numbered as ids come, those of a field do not lie together."""
        for field in spec.stats.fields:
            if self.by_field and not field.ranked:
                raise ValueError(
                    f"{self.name} with by_field=1 needs the chunks of a field together; field "
                    f"{field.name!r} is hashed without a vocabulary: remove its hash_rows, or leave "
                    "`by_field` at 0"
                )

    def _chunks(self, spec: TableSpec) -> int:
        return math.gcd(self.chunks, spec.dim)

    def _places(self, spec: TableSpec) -> int:
        return max(1, math.floor(self.keep * spec.stats.rows * self._chunks(spec)))


class FiitedTable(Table):
    """Reads and trains the store; what the best epoch is remembered by are pointers and pool."""

    entry: Tensor | None
    pointers: Tensor
    weight: Tensor

    def __init__(self, method: Fiited, spec: TableSpec, store: ChunkStore) -> None:
        super().__init__(spec)
        self.method, self.store = method, store
        starts = spec.stats.first_rows
        self._fields = (
            tuple(zip(starts, (*starts[1:], spec.stats.rows), strict=True)) if method.by_field else None
        )
        self.register_buffer("entry", store.entry)
        self.register_buffer("pointers", store.pointers)
        self.register_buffer("weight", store.pool)
        for name in ("utility", "free"):
            self.register_buffer(name, getattr(store, name), persistent=False)
        for name, state in store.state.items():
            self.register_buffer(f"state_{name}", state, persistent=False)
        self._pending: tuple[Tensor, Repeats, Tensor] | None = None

    def _apply(self, *arguments: Any, **options: Any) -> "FiitedTable":
        """Moved with the module, the store must hold the moved tensors."""
        super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        self.store.pool = self.weight
        for name in ("entry", "pointers", "utility", "free"):
            setattr(self.store, name, getattr(self, name))
        self.store.state = {name: getattr(self, f"state_{name}") for name in self.store.state}
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Entries that came after what is loaded are dropped, and places that it does not hold are free.

        A pool remembered while it still shrank is loaded at its size then; `settle` shrinks it again.
        """
        kept = state_dict.get(f"{prefix}pointers", self.pointers)
        places = len(state_dict.get(f"{prefix}weight", self.weight))
        if places != len(self.weight):
            self.store.resize(places)
            self._follow()
        if self.entry is not None and len(kept) != len(self.pointers):
            self.store.keep_entries(len(kept))
            self._follow()
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if self.entry is not None:
            self.store.entry_count = int((self.entry >= 0).sum())
        self.store.count_free()

    def _follow(self) -> None:
        """The store makes its entries anew when they grow, and its pool when that shrinks."""
        self.pointers, self.utility = self.store.pointers, self.store.utility
        self.weight, self.free = self.store.pool, self.store.free
        for name, state in self.store.state.items():
            setattr(self, f"state_{name}", state)

    def values(self, lookup: Lookup) -> Tensor:
        if not torch.is_grad_enabled():
            return self._stored(self.store.look_up(lookup.rows))
        rows, repeats = dedupe(lookup.rows, self.spec.stats.rows)
        self.store.admit(rows)
        self._follow()
        # a leaf of all look-ups: the step sums the gradients of repeats where it needs them
        values = self.store.look_up(lookup.rows).requires_grad_()
        self._pending = rows, repeats, values
        return self._stored(values)

    def _stored(self, values: Tensor) -> Tensor:
        """What the file will hold of the values; gradients pass through."""
        if self.method.bits == 16:
            return values + (values.detach().half().float() - values.detach())
        return values

    def update(self, learning_rate: float) -> None:
        if self._pending is None:
            return
        rows, repeats, values = self._pending
        self._pending = None
        if values.grad is not None:
            self.store.step(rows, values.grad, learning_rate, repeats)
            self._follow()

    def after_step(self, step: int) -> None:
        interval = EARLY_INTERVAL if step <= EARLY_STEPS else self.method.interval
        if step == 1 or step % min(interval, self.method.interval) == 0:
            self.store.rebalance(self.method.decay, self.method.margin, self._fields)
        if self.method.schedule and step % min(EARLY_INTERVAL, self.method.interval) == 0:
            self._shrink(step / self.method.schedule)

    def settle(self) -> bool:
        """The pool has its final size, also where training ended before the schedule did."""
        self._shrink(1.0)
        return False

    def _shrink(self, done: float) -> None:
        """The pool at this part of the schedule."""
        every, last = self.spec.stats.rows * self.method._chunks(self.spec), self.method._places(self.spec)
        places = max(last, round(every + (last - every) * min(1.0, done)))
        if places < len(self.weight):
            self.store.shrink(places, self._fields)
            self._follow()

    def plan(self) -> Plan:
        fields = range(len(self.spec.stats.fields))
        return self.method.plan(self.spec, [int((self._pointers_of(field) >= 0).sum()) for field in fields])

    def pack(self) -> Packed:
        def rows_of(field: int, segment: Segment) -> SegmentRows:
            pointers = self._pointers_of(field).flatten()
            held = pointers >= 0
            values = self.weight[pointers[held].long()]
            if self.method.bits == 16:
                values = values.half().float()
            pack_held = pack_listed if segment.sharing is Sharing.LISTED else pack_marks
            return SegmentRows(values, index=pack_held(held.cpu()))

        return pack(self.plan(), rows_of)

    def _pointers_of(self, field: int) -> Tensor:
        """(rows of the field, chunks) int32: places in the pool, negative where a chunk has none."""
        first, rows = self.spec.stats.first_rows[field], self.spec.stats.fields[field].rows
        return self.store.pointers_of(torch.arange(first, first + rows, device=self.pointers.device))

    @property
    def training_bytes(self) -> int:
        return self.store.nbytes
