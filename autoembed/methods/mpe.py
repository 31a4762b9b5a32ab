"""MPE: groups of ids learn how many bits their rows take, 0 bits being the zero vector.

"Mixed-precision embeddings for large-scale recommendation models", arXiv:2409.20305.

1. All rows of all fields are sorted by their look-ups in the train split and cut into groups of equal size.
2. Search: a row reads the sum over widths b of pi[g, b] * Q_b(row), with pi[g] = softmax(gamma[g] / tau) of
   its group g and Q_0 = 0; Q_b is LSQ+ with one step per width and one offset per dimension for the whole
   table. The loss gains penalty * sum over g of (sum over b of pi[g, b] b) / (c_g / min c), with c_g the
   look-ups of a group.
3. Settle: group g takes the largest b with pi[g, b] >= 1 / (2 * number of widths).
4. Retrain: rows start again from their first values, with widths fixed; steps, offset and network stay.

Departs from the paper: look-ups are counted in the train split alone, and a group that was never looked up
counts as one; ties of the count are cut so that a group holds a range of ranks of each field, and finding
the group of an id costs no bytes; rows start from N(0, initial_std^2) as everywhere here; profiles with a
scale in each row have no offset, and only the widths that they can store.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from autoembed.budget import Footprint
from autoembed.lookup import Lookup
from autoembed.methods.base import Float, Int, Method, Table, TableSpec, initial_table, knob
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.plans import Fields, fields_bytes, stored_plan
from autoembed.methods.stored_precision import first_step
from autoembed.packed import Packed
from autoembed.plan import (
    FieldPlan,
    Numbering,
    Plan,
    Profile,
    Segment,
    Sharing,
    directory_header_bytes,
    field_entry_bytes,
    header_bytes,
    own,
    segment_entry_bytes,
)
from autoembed.stats import Stats
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.lsq import Grid, grid_table, mix_quantized
from autoembed_kernels.row_update import RowOptimizer

WIDTHS = (1, 2, 3, 4, 5, 6)


@dataclass(frozen=True)
class Mpe(Method):
    """Mixed precision over frequency groups of all fields."""

    penalty: float = knob(1e-5, Float(1e-9, 1.0, log=True), "weight of the bits in the loss (lambda)")
    groups: int = knob(128, Int(1, 4096, log=True), "frequency groups of equal size over all fields")
    tau: float = knob(3e-3, Float(1e-4, 1.0, log=True), "temperature of the mixture of widths")

    name: ClassVar[str] = "mpe"
    summary: ClassVar[str] = "frequency groups learn their bit-width, 0 to 6 bits"
    source: ClassVar[str] = "MPE, arXiv:2409.20305"
    levers: ClassVar[tuple[str, ...]] = ("rows", "precision")
    ranks: ClassVar[bool] = True

    def footprint(self, spec: TableSpec) -> Footprint:
        groups = FrequencyGroups.of(spec.stats, self.groups)
        widest = np.full(groups.count, max(widths(spec.profile)))
        # the directory is longest where no two neighbouring groups agree
        return Footprint(least_bytes(spec), groups.bytes(spec, widest, merge=False))

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> "MpeTable":
        return MpeTable(self, spec, generator, optimizer)


def least_bytes(spec: TableSpec) -> int:
    """Bytes of the file in which all groups take 0 bits."""
    pruned = [(field, Segment(0, field.rows, Sharing.ZERO)) for field in spec.stats.fields]
    fields = tuple(FieldPlan(field.name, field.rows, spec.dim, (segment,)) for field, segment in pruned)
    return fields_bytes(spec, fields)


def widths(profile: Profile) -> tuple[int, ...]:
    """The widths above 0 that a profile can store. Raises ValueError where there is none."""
    found = tuple(bits for bits in WIDTHS if f"int{bits}" in profile.precisions)
    if not found:
        raise ValueError(
            f"mpe chooses among codes of 1 to 6 bits, profile {profile.name!r} stores none of them; "
            f"it knows {', '.join(profile.precisions)}"
        )
    return found


@dataclass(frozen=True)
class FrequencyGroups:
    """Groups of rows of all fields, the rarest first, as runs of rows in the data's order.

    Run i begins at global row starts[i] and belongs to group_of_run[i]. relative_counts (G,) are the
    look-ups of each group over the smallest of them.
    """

    starts: np.ndarray[tuple[int], np.dtype[np.int64]]
    group_of_run: np.ndarray[tuple[int], np.dtype[np.int64]]
    relative_counts: np.ndarray[tuple[int], np.dtype[np.float64]]

    @property
    def count(self) -> int:
        return len(self.relative_counts)

    @staticmethod
    def of(stats: Stats, groups: int) -> "FrequencyGroups":
        """Cut all rows, by ascending count, into groups of ceil(R / groups) rows; the last may be smaller.

        Equal counts are ordered by field and then from the end of the field, so that a group is a range
        of rows of each field, but for row 0, which stands where its count puts it.
        """
        counts = np.concatenate([field.counts for field in stats.fields])
        owner = np.repeat(np.arange(len(stats.fields)), [field.rows for field in stats.fields])
        row = np.arange(stats.rows)
        order = np.lexsort((-row, owner, counts))
        size = -(-stats.rows // groups)
        group = np.empty(stats.rows, dtype=np.int64)
        group[order] = row // size
        begins = np.ones(stats.rows, dtype=bool)
        begins[1:] = (group[1:] != group[:-1]) | (owner[1:] != owner[:-1])
        totals = np.maximum(np.add.reduceat(counts[order], np.arange(0, stats.rows, size)), 1)
        starts = np.flatnonzero(begins)
        return FrequencyGroups(starts, group[starts], totals / totals.min())

    def fields(self, spec: TableSpec, bits: np.ndarray, *, merge: bool = True) -> Fields:
        """The plan in which group g takes bits[g] bits; neighbours that agree become one segment."""
        numbers = {width: number for number, width in enumerate(widths(spec.profile))}
        firsts = (*spec.stats.first_rows, spec.stats.rows)
        fields = []
        for field, first, end in zip(spec.stats.fields, firsts, firsts[1:], strict=False):
            runs = slice(*np.searchsorted(self.starts, (first, end)))
            starts = self.starts[runs] - first
            chosen = bits[self.group_of_run[runs]]
            if merge:
                differs = np.append(True, chosen[1:] != chosen[:-1])
                starts, chosen = starts[differs], chosen[differs]
            stops = (*starts[1:], field.rows)
            segments = tuple(
                own(int(start), int(stop), spec.dim, f"int{width}", scale=numbers[int(width)], offset=0)
                if width
                else Segment(int(start), int(stop), Sharing.ZERO)
                for start, stop, width in zip(starts, stops, chosen, strict=True)
            )
            fields.append(FieldPlan(field.name, field.rows, spec.dim, segments))
        return tuple(fields)

    def bytes(self, spec: TableSpec, bits: np.ndarray, *, merge: bool = True) -> int:
        """Bytes of the exported tables file under `fields`, added up without making the plan."""
        profile, chosen = spec.profile, bits[self.group_of_run]
        begins = np.ones(len(chosen), dtype=bool)
        if merge:
            begins[1:] = chosen[1:] != chosen[:-1]
            begins[np.searchsorted(self.starts, spec.stats.first_rows)] = True
        runs = np.bincount(chosen[begins])  # of every width, as far as there are some
        rows = np.diff(np.append(self.starts[begins], spec.stats.rows))
        payload = 0
        for width in np.flatnonzero(runs[1:]) + 1:
            size = rows[chosen[begins] == width] * profile.row_bytes(spec.dim, f"int{width}")
            payload += int((-(-size // profile.table_align) * profile.table_align).sum())
        is_shared = profile.row_scale_bytes == 0 and len(runs) > 1
        sizes = {
            "offsets": 4 * spec.dim if is_shared else 0,
            "scales": 4 * (widths(profile).index(len(runs) - 1) + 1) if is_shared else 0,
            "projections": 0,
            "index": self._directory_bytes(spec, begins, chosen),
            "payload": payload,
        }
        return header_bytes(sizes) + sum(sizes.values())

    def _directory_bytes(self, spec: TableSpec, begins: np.ndarray, chosen: np.ndarray) -> int:
        """Of the plan whose runs begin at `begins` (runs,) bool and take `chosen` (runs,) bits."""
        is_shared = spec.profile.row_scale_bytes == 0
        stored = chosen[begins & (chosen > 0)]
        numbers = np.searchsorted(widths(spec.profile), stored).tolist()
        numbering = Numbering(Numbering.scale_bytes(numbers), 1) if is_shared and numbers else Numbering()
        some = own(0, 1, spec.dim, "int8", scale=0 if is_shared else None)
        zero = Segment(0, 1, Sharing.ZERO)
        size = directory_header_bytes(len(spec.stats.fields))
        firsts = (*spec.stats.first_rows, spec.stats.rows)
        for field, first, end in zip(spec.stats.fields, firsts, firsts[1:], strict=False):
            runs = slice(*np.searchsorted(self.starts, (first, end)))
            is_some = chosen[runs][begins[runs]] > 0
            size += field_entry_bytes(field.rows, spec.dim)
            for segment, count in ((some, is_some.sum()), (zero, (~is_some).sum())):
                size += int(count) * segment_entry_bytes(field.rows, spec.dim, segment, numbering)
        return size


class MpeTable(Table):
    """Searches with all rows and a mixture of widths; after `settle`, trains the plan it settled on."""

    start: Tensor
    group_of_run: Tensor
    relative_counts: Tensor
    bits: Tensor
    grids: Tensor
    gradient_scales: Tensor

    def __init__(
        self, method: Mpe, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer
    ) -> None:
        super().__init__(spec)
        self.method = method
        self.groups = FrequencyGroups.of(spec.stats, method.groups)
        self.first_state = generator.get_state()
        weight = initial_table(spec, generator)
        grids = [Grid(bits) for bits in widths(spec.profile)]
        shared_scales = spec.profile.row_scale_bytes == 0
        self.rows: RowStore | None = RowStore(weight, optimizer)
        self.gamma = nn.Parameter(torch.zeros(self.groups.count, 1 + len(grids)))
        self.steps = nn.Parameter(torch.tensor([first_step([weight], grid) for grid in grids]))
        self.offset = nn.Parameter(torch.zeros(spec.dim)) if shared_scales else None
        for name, values in (
            ("start", torch.from_numpy(self.groups.starts)),
            ("group_of_run", torch.from_numpy(self.groups.group_of_run)),
            ("relative_counts", torch.from_numpy(self.groups.relative_counts).float()),
            ("bits", torch.tensor([0.0, *(grid.bits for grid in grids)])),
            ("grids", grid_table(grids)),
            (
                "gradient_scales",
                torch.tensor([(2 ** (grid.bits - 1) * weight.numel()) ** -0.5 for grid in grids]),
            ),
        ):
            self.register_buffer(name, values, persistent=False)
        self.settled: FixedPlanTable | None = None

    def mixture(self) -> Tensor:
        """pi (G, 1 + widths): the share of every width in every group, 0 bits first."""
        return torch.softmax(self.gamma / self.method.tau, dim=1)

    def values(self, lookup: Lookup) -> Tensor:
        if self.settled is not None:
            return self.settled.values(lookup)
        assert self.rows is not None
        unique, weights, inverse = self.rows.gather(lookup.rows)
        group = self.group_of_run[torch.searchsorted(self.start, unique, right=True) - 1]
        mixture = self.mixture()[:, 1:].index_select(0, group)  # (U, P)
        mixed = mix_quantized(weights, self.steps, self.grids, self.gradient_scales, mixture, self.offset)
        return repeat(mixed, inverse)

    def penalty(self) -> Tensor | None:
        if self.settled is not None:
            return None
        return self.method.penalty * (self.mixture() @ self.bits / self.relative_counts).sum()

    def update(self, learning_rate: float) -> None:
        store = self.rows if self.settled is None else self.settled
        assert store is not None
        store.update(learning_rate)

    @torch.no_grad()
    def chosen_bits(self) -> np.ndarray:
        """Per group (G,), the largest width that holds at least half of an equal share."""
        mixture = self.mixture()
        wanted = mixture >= 1 / (2 * mixture.shape[1])
        bits = (wanted * self.bits).amax(dim=1)
        return bits.cpu().numpy().astype(np.int64)

    @torch.no_grad()
    def settle(self) -> bool:
        """Fix the widths and put the rows back to their first values. True: retrain."""
        if self.settled is not None:
            return False
        assert self.rows is not None
        fields = self.groups.fields(self.spec, self.chosen_bits())
        generator = torch.Generator()
        generator.set_state(self.first_state)
        weight = initial_table(self.spec, generator)
        kept = [
            weight[first + segment.start : first + segment.stop]
            for first, field in zip(self.spec.stats.first_rows, fields, strict=True)
            for segment in field.segments
            if segment.stored_rows
        ]
        self.settled = FixedPlanTable(
            self.spec,
            fields,
            torch.cat([weight[:0], *kept]),
            self.rows.optimizer,
            self.steps.detach().cpu(),
            None if self.offset is None else self.offset.detach().cpu(),
            self.gradient_scales.cpu(),
        ).to(self.start.device)
        self.rows = None
        for parameter in ("gamma", "steps", "offset"):
            setattr(self, parameter, None)
        return True

    def plan(self) -> Plan:
        if self.settled is not None:
            return self.settled.plan()
        return stored_plan(self.spec.profile, self.groups.fields(self.spec, self.chosen_bits()))

    def pack(self) -> Packed:
        """Raises ValueError before `settle`: a mixture of widths has no packed form."""
        if self.settled is None:
            raise ValueError("the widths of mpe are still a mixture; call settle() before pack()")
        return self.settled.pack()

    @property
    def training_bytes(self) -> int:
        """Rows with their state, runs of groups, and every parameter with the two moments of Adam."""
        if self.settled is not None:
            return self.settled.training_bytes
        assert self.rows is not None
        learned = sum(p.numel() for p in self.parameters())
        return self.rows.nbytes + 8 * (len(self.start) + len(self.group_of_run)) + 12 * learned
