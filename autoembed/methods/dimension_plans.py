"""Plans in which every block of rows has its own dimension, and their bytes, for many choices of dimensions.

Bytes are added up as `plan_bytes` does, field by field and without the plan, which is made when asked for: a
bound on bytes asks for those of hundreds of plans that differ in a few blocks.
"""

from dataclasses import dataclass

from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Fields, stored_plan, stored_segment
from autoembed.plan import (
    FieldPlan,
    Numbering,
    Profile,
    check,
    directory_header_bytes,
    field_entry_bytes,
    header_bytes,
    segment_entry_bytes,
)

Block = tuple[int, int, float]  # first row, end, popularity
Blocks = tuple[tuple[Block, ...], ...]  # of every field


@dataclass(frozen=True)
class Cut:
    """A field: runs of rows (first, end, dimension), the width of its matrix or 0, bytes of the rows.

    `entries`: bytes of the field and its runs in the directory.
    """

    runs: tuple[tuple[int, int, int], ...]
    projection_dim: int
    payload: int
    entries: int


Cuts = tuple[Cut, ...]


class DimensionPlans:
    """Plans of fields cut into `blocks`, for vectors of `dim` values that are stored in `bits` each."""

    def __init__(self, blocks: Blocks, profile: Profile, dim: int, bits: int) -> None:
        self._blocks, self._profile, self._dim, self._bits = blocks, profile, dim, bits
        self._precision = f"int{bits}" if bits <= 8 else f"fp{bits}"
        self._step_bytes = 4 if bits <= 8 and profile.row_scale_bytes == 0 else 0
        self._known: dict[tuple[int, tuple[int, ...]], tuple[Cut, Cut]] = {}

    def cuts(self, dims: list[int]) -> Cuts:
        """Every field with block i of `dims[i]` columns; neighbours that agree become one run.

        Of a field with a matrix and one whose widest blocks have the full width, that of fewer bytes.
        """
        cuts: list[Cut] = []
        at = step = 0
        for number, blocks in enumerate(self._blocks):
            chosen = tuple(dims[at : at + len(blocks)])
            at += len(blocks)
            if (number, chosen) not in self._known:
                full = _widened(chosen, self._dim)
                self._known[number, chosen] = self._cut(blocks, chosen), self._cut(blocks, full)
            cut, wide = self._known[number, chosen]
            # as files of this field alone, its steps numbered behind those of the fields before it
            if wide != cut and self._bytes((wide,), step) <= self._bytes((cut,), step):
                cut = wide
            cuts.append(cut)
            step += len(cut.runs)
        return tuple(cuts)

    def bytes(self, cuts: Cuts) -> int:
        """Bytes of the exported tables file."""
        return self._bytes(cuts, 0)

    def fields(self, cuts: Cuts, spec: TableSpec) -> Fields:
        """The plans of the fields of `spec`. Raises ValueError where its profile cannot store them."""
        fields, step = [], 0
        for field, cut in zip(spec.stats.fields, cuts, strict=True):
            segments = tuple(
                stored_segment(start, stop, dim, self._bits, step + number)
                for number, (start, stop, dim) in enumerate(cut.runs)
            )
            fields.append(FieldPlan(field.name, field.rows, spec.dim, segments, cut.projection_dim))
            step += len(segments)
        check(stored_plan(spec.profile, tuple(fields)))
        return tuple(fields)

    def _bytes(self, cuts: Cuts, step: int) -> int:
        runs = sum([len(cut.runs) for cut in cuts])
        sizes = {
            "offsets": 0,
            "scales": self._step_bytes * (step + runs),
            "projections": 2 * self._dim * sum([cut.projection_dim for cut in cuts]),
            "index": directory_header_bytes(len(cuts)) + sum([cut.entries for cut in cuts]),
            "payload": sum([cut.payload for cut in cuts]),
        }
        return header_bytes(sizes) + sum(sizes.values())

    def _cut(self, blocks: tuple[Block, ...], dims: tuple[int, ...]) -> Cut:
        widest = max(dims)
        runs: list[tuple[int, int, int]] = []
        for (start, stop, _), narrow in zip(blocks, dims, strict=True):
            dim = _widest_for_free(self._profile, narrow, self._precision, widest)
            if runs and runs[-1][2] == dim:
                start = runs.pop()[0]
            runs.append((start, stop, dim))
        sizes = [self._profile.payload_bytes(stop - start, dim, self._precision) for start, stop, dim in runs]
        projection_dim, rows = 0 if widest == self._dim else widest, blocks[-1][1]
        entries = field_entry_bytes(rows, self._dim, projection_dim) + sum(
            # steps are numbered in turn
            segment_entry_bytes(rows, widest, stored_segment(start, stop, dim, self._bits, 0), Numbering())
            for start, stop, dim in runs
        )
        return Cut(tuple(runs), projection_dim, sum(sizes), entries)


def _widened(dims: tuple[int, ...], dim: int) -> tuple[int, ...]:
    """The widest blocks at full width, so that the field needs no matrix."""
    widest = max(dims)
    return tuple(dim if d == widest else d for d in dims)


def _widest_for_free(profile: Profile, dim: int, precision: str, limit: int) -> int:
    """The largest dimension up to `limit` whose row takes no more bytes than that of `dim`."""
    size = profile.row_bytes(dim, precision)
    while dim < limit and profile.row_bytes(dim + 1, precision) <= size:
        dim += 1
    return dim
