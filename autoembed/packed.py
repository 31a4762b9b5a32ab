"""The tables as they lie in the exported file: packing rows under a plan, and reading them back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import is_, itemgetter
from pathlib import Path

import torch
from torch import Tensor, nn

from autoembed.data.batch import Bag, Batch
from autoembed.lookup import look_up
from autoembed.marked_rows import MarkedRows
from autoembed.packed_segments import packed_segments
from autoembed.plan import Plan, PlanBytes, Segment, Sharing, placed, plan_bytes, segment_index_bytes
from autoembed.pool_address import PoolAddress
from autoembed.quotient_pairs import QuotientPairs
from autoembed.quotient_paths import QuotientPaths
from autoembed.row_codes import encode_rows
from autoembed.row_tails import RowTails
from autoembed.segment_index import check_segment_index, placed_index, unpack_codes
from autoembed.shared_rows import SharedAddress
from autoembed.tables_file import read_tables, write_tables
from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.code_stream import PAD, code_bits
from autoembed_kernels.gather_packed import SEGMENT_TENSORS, PackedSegments, as_words, gather_packed
from autoembed_kernels.look_up_packed import (
    ROW_TENSORS,
    PackedRows,
    eager_look_up_packed,
    look_up_packed,
    stored_rows,
)
from autoembed_kernels.look_up_parts import look_up_parts
from autoembed_kernels.look_up_shared import look_up_shared
from autoembed_kernels.native.loader import checked
from autoembed_kernels.pool_packed import pool_packed

_CHUNK_VALUES = 1 << 20  # rows are packed and decoded in pieces of about this many values
_TENSORS = ("payload", "scales", "offsets", "projections", "segment_index")

# how rows are read, by the buffers of a table
_BUFFERS = itemgetter(
    *(f"segment_{name}" for name in SEGMENT_TENSORS), *(f"row_{name}" for name in ROW_TENSORS)
)


@dataclass(frozen=True)
class SegmentRows:
    """What a method stores in one segment.

    values (stored_rows, dim) float32: for integer codes the rows before rounding. `scale`: the
    learned step of the codes, a scalar or one per row; None fits it to the values, which only
    profiles with a scale in each row may do. `index`: the segment's index bytes, (segment_index_bytes,)
    uint8; None where it has none.
    """

    values: Tensor
    scale: Tensor | None = None
    index: Tensor | None = None


@dataclass(frozen=True)
class Packed:
    """A packed plan: exactly the tensors of the tables file, on the CPU.

    payload (bytes,) uint8; scales (S,) float32; offsets float32, behind one another; projections
    float16, row-major matrices behind one another in field order; segment_index uint8, the index bytes of
    the segments behind one another in file order.
    """

    plan: Plan
    payload: Tensor
    scales: Tensor
    offsets: Tensor
    projections: Tensor
    segment_index: Tensor

    @property
    def bytes(self) -> PlanBytes:
        """Bytes of the file that `save` writes."""
        return plan_bytes(self.plan)

    def codes(self) -> dict[tuple[int, int], Tensor]:
        """The codes (rows,) uint8 of segments that read a codebook, by field and first row."""
        return {
            (field, s.start): unpack_codes(s, self.segment_index[at : at + segment_index_bytes(s)])
            for field, s, at in placed_index(self.plan)
            if s.sharing is Sharing.CODEBOOK
        }

    def save(self, path: Path) -> int:
        """Write the tables file, whole or not at all; returns its bytes, exactly `self.bytes.total`."""
        return write_tables(path, self.plan, {name: getattr(self, name) for name in _TENSORS})

    @staticmethod
    def load(path: Path, names: Sequence[str] | None = None) -> "Packed":
        """Read a tables file; `names` are the fields' names, which the file does not hold.

        Raises TablesError (autoembed.tables_file) where the file is cut off, altered or inconsistent.
        """
        plan, tensors = read_tables(path, names)
        return Packed(plan, **tensors)


RowsOf = Callable[[int, Segment], SegmentRows]


def pack(
    plan: Plan,
    rows_of: RowsOf,
    scales: Tensor | None = None,
    offsets: Sequence[Tensor] | None = None,
    projections: Sequence[Tensor] | None = None,
) -> Packed:
    """Pack a plan. `rows_of(field index, segment)` is asked for every segment that stores rows or
    index bytes, in order.

    scales (plan.scale_count,) float32, their sign is dropped; offsets, one (at least offset_dims[i],) each;
    projections, one (projection_dim, dim) for each field that has one. Raises ValueError where rows, scales
    or values do not fit the plan.
    """
    total = plan_bytes(plan).payload
    shared = _numbers(scales, plan.scale_count, "scales").abs()
    starts = [_numbers(o, dim, "offset") for o, dim in zip(offsets or [], plan.offset_dims(), strict=True)]
    payload = torch.zeros(total, dtype=torch.uint8)
    indexes = [torch.zeros(0, dtype=torch.uint8)]
    for index, segment, at in placed(plan):
        index_bytes = segment_index_bytes(segment)
        if segment.stored_rows == 0 and index_bytes == 0:
            continue
        rows = rows_of(index, segment)
        field = plan.fields[index]
        where = f"field {field.name!r}, rows [{segment.start}, {segment.stop})"
        shape = (segment.stored_rows, segment.dim)
        if rows.values.shape != shape:
            raise ValueError(f"{where}: expected values {shape}, got {tuple(rows.values.shape)}")
        own_index = indexes[0][:0] if rows.index is None else rows.index.detach().cpu()
        if own_index.dtype != torch.uint8 or own_index.shape != (index_bytes,):
            raise ValueError(
                f"{where}: expected {index_bytes} index bytes, got shape {tuple(own_index.shape)} "
                f"of {own_index.dtype}"
            )
        indexes.append(own_index)
        if segment.stored_rows == 0:
            continue
        scale = rows.scale if segment.scale is None else shared[segment.scale]
        offset = None if segment.offset is None else starts[segment.offset][: segment.dim]
        try:
            _encode_segment(plan, segment, rows.values, scale, offset, payload[at:])
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    segment_index = torch.cat(indexes)
    check_segment_index(plan, segment_index)
    matrices = _flat_projections(plan, projections or [])
    return Packed(plan, payload, shared, _flat(starts), matrices, segment_index)


def _encode_segment(
    plan: Plan, segment: Segment, values: Tensor, scale: Tensor | None, offset: Tensor | None, out: Tensor
) -> None:
    row_bytes = plan.profile.row_bytes(segment.dim, segment.precision)
    out = out[: segment.stored_rows * row_bytes].view(segment.stored_rows, row_bytes)
    if scale is not None:
        scale = scale.detach().abs().float().cpu().reshape(-1, 1)  # (1, 1) or (rows, 1)
    step = max(1, _CHUNK_VALUES // segment.dim)
    for start in range(0, segment.stored_rows, step):
        chunk = values[start : start + step].detach().float().cpu()
        if not torch.isfinite(chunk).all():
            raise ValueError("the rows hold NaN or infinity, the training diverged")
        chunk_scale = scale if scale is None or len(scale) == 1 else scale[start : start + step]
        out[start : start + step] = encode_rows(plan.profile, segment, chunk, chunk_scale, offset)


def _numbers(values: Tensor | None, count: int, what: str) -> Tensor:
    """`count` finite float32 numbers on the CPU."""
    values = torch.zeros(0) if values is None else values.detach().float().cpu().flatten()[:count]
    if len(values) != count or not torch.isfinite(values).all():
        raise ValueError(f"{what}: expected {count} finite numbers, got {values.tolist()[:8]}")
    return values


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.zeros(0)


def _flat_projections(plan: Plan, projections: Sequence[Tensor]) -> Tensor:
    shapes = [(f.projection_dim, f.dim) for f in plan.fields if f.projection_dim]
    if [tuple(p.shape) for p in projections] != shapes:
        raise ValueError(f"expected projections {shapes}, got {[tuple(p.shape) for p in projections]}")
    return _flat([p.detach().cpu().half().flatten() for p in projections]).half()


class PackedTable(nn.Module):
    """Look-ups in packed tables. Only the packed bytes are held; a look-up decodes the rows it reads.

    `first_rows` are the data's (`Stats.first_rows`), checked against the plan's. All fields must have
    one output dimension D.
    """

    words: Tensor
    first_rows: Tensor
    matrices: Tensor

    def __init__(self, packed: Packed, first_rows: Sequence[int] | Tensor | None = None) -> None:
        super().__init__()
        plan = packed.plan
        dims = {field.dim for field in plan.fields}
        if len(dims) != 1:
            raise ValueError(f"all fields need one output dimension, this plan has {sorted(dims)}")
        starts = torch.tensor([0, *(field.rows for field in plan.fields)]).cumsum(0)[:-1]
        if first_rows is not None and starts.tolist() != torch.as_tensor(first_rows).tolist():
            raise ValueError(
                f"the data's fields start at rows {torch.as_tensor(first_rows).tolist()}, the plan's at "
                f"{starts.tolist()}; these tables were made for other data"
            )
        self.plan = plan
        self.dim = dims.pop()
        self.width = max(self.dim, *(field.projection_dim for field in plan.fields))
        self._register("first_rows", starts)
        self._register("words", as_words(packed.payload, self.width))
        self._layout = packed_segments(plan, packed.scales, packed.offsets, self.width)
        for name in SEGMENT_TENSORS:
            self._register(f"segment_{name}", getattr(self._layout, name))
        self._addresses = _packed_rows(plan, self.first_rows, packed.segment_index)
        for name in ROW_TENSORS:
            self._register(f"row_{name}", getattr(self._addresses, name))
        self._read_by = _BUFFERS(self._buffers)
        self.pool_address = PoolAddress(plan, packed.segment_index, self.dim)
        self.pairs = QuotientPairs([segment for _, segment, _ in placed(plan)])
        self.paths = QuotientPaths([segment for _, segment, _ in placed(plan)])
        self.marked = MarkedRows(plan, packed.segment_index)
        self.tails = RowTails([segment for _, segment, _ in placed(plan)])
        # whether every look-up reads one stored row or none
        self.shared = SharedAddress(self.pairs, self.pool_address, self.dim)
        walks = bool(self.paths.any_path or self.marked.chunks)
        shares = bool(self.pairs.kinds or self.pool_address.pool is not None)
        parts = bool(self.tails.columns)
        self._reads_single_rows = not (walks or shares or parts)
        self._reads_shared_rows = shares and not (walks or parts)
        self._reads_rows_in_parts = parts and not (walks or shares)
        self._projected = [i for i, field in enumerate(plan.fields) if field.projection_dim]
        self._register("matrices", _matrices(packed, self.width))

    def _register(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor, persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """-> (B, F, D): the vector of every field of every example, bags pooled."""
        if batch.bags and self._reads_single_rows:
            pooled = self._with_bags(batch)  # (B, F, W)
        else:
            lookup = look_up(batch, self.first_rows)
            pooled = lookup.pool(self.stored(lookup.rows, max(1, len(lookup.single))))
        vectors = pooled[:, :, : self.dim]
        if not self._projected:
            return vectors
        vectors = vectors.clone()
        vectors[:, self._projected] = torch.einsum("bfw,fwd->bfd", pooled[:, self._projected], self.matrices)
        return vectors

    def _with_bags(self, batch: Batch) -> Tensor:
        """-> (B, F, W), bags summed or averaged as their rows are decoded."""
        fields, bagged = range(batch.ids.shape[1]), sorted(batch.bags)
        single = [field for field in fields if field not in batch.bags]
        bags = [batch.bags[field] for field in bagged]
        rows = torch.cat([bag.values + self.first_rows[f] for f, bag in zip(bagged, bags, strict=True)])
        ends, before = [bags[0].offsets[:1]], 0
        for bag in bags:
            ends.append(bag.offsets[1:] + before)
            before += len(bag.values)
        weighted = [bag.weights is not None for bag in bags]
        # a mean of weighted ids is a sum whose weights are shares of theirs
        means = [bag.pooling == "mean" and not has for bag, has in zip(bags, weighted, strict=True)]
        weights = torch.cat([_weights(bag) for bag in bags]) if any(weighted) else None
        pooled = pool_packed(
            *(self.words, *self._held(), rows, torch.cat(ends)),
            *(torch.tensor(means, device=rows.device), weights),
        )  # (B, bagged, W)
        if not single:
            return pooled
        values = self.stored((batch.ids[:, single] + self.first_rows[single]).flatten(), len(single))
        columns = dict(zip(bagged, pooled.unbind(1), strict=True))
        columns |= dict(zip(single, values.view(-1, len(single), self.width).unbind(1), strict=True))
        return torch.stack([columns[field] for field in fields], dim=1)

    def _held(self) -> tuple[PackedSegments, PackedRows]:
        """How rows are read, by the module's buffers, which moving the module replaces."""
        buffers = _BUFFERS(self._buffers)
        # equal ones are kept, because they keep what C++ is given; every look-up compares them
        if torch.compiler.is_compiling() or not all(map(is_, buffers, self._read_by)):
            by_segment = dict(zip(SEGMENT_TENSORS, buffers, strict=False))
            by_row = dict(zip(ROW_TENSORS, buffers[len(SEGMENT_TENSORS) :], strict=True))
            held = replace(self._layout, **by_segment), replace(self._addresses, **by_row)
            if torch.compiler.is_compiling():
                return held
            self._read_by, (self._layout, self._addresses) = buffers, held
        return self._layout, self._addresses

    def stored(self, rows: Tensor, columns: int = 1) -> Tensor:
        """Global rows (N,) -> what is stored for them (N, W), padded with zeros, before any projection.

        `columns`: the single fields of the batch, in whose turn the first rows come; it only saves time.
        On a CPU, raises IndexError where a row is negative or not below the number of rows of all fields.
        """
        layout, addresses = self._held()
        if self._reads_single_rows:
            words = self._buffers["words"]  # past __getattr__, which takes as long as a check of all others
            assert words is not None
            looked_up = look_up_packed if torch.compiler.is_compiling() else eager_look_up_packed
            return looked_up(words, layout, addresses, rows, columns)
        if self._reads_shared_rows and not torch.compiler.is_compiling():
            return look_up_shared(self.words, layout, addresses, self.shared.rows(), rows, columns)
        if self._reads_rows_in_parts and not torch.compiler.is_compiling():
            return look_up_parts(
                self.words, layout, addresses, self.tails.count, self.tails.most, rows, columns
            )
        if not torch.compiler.is_compiling():
            _check_rows(rows, addresses.rows)
        pool = self.pool_address.pool
        _, segment, stored = stored_rows(addresses, rows)
        if pool is not None:
            return self._with_pool(pool, layout, segment, stored)
        return self._read(layout, segment, stored)

    def _read(self, layout: PackedSegments, segment: Tensor, stored: Tensor) -> Tensor:
        """Rows (N,) by their places in their segments -> (N, W); places of OWN and HASHED are stored rows."""
        values = self._read_heads(layout, segment, stored)
        for column, chosen, tail in self.tails.of(segment):
            read = gather_packed(self.words, layout, tail, stored[chosen])  # zero behind the tail's columns
            values[:, column:].index_copy_(0, chosen, read[:, : self.width - column])
        return values

    def _read_heads(self, layout: PackedSegments, segment: Tensor, stored: Tensor) -> Tensor:
        """As `_read`, without the columns that tails hold."""
        if not self.marked.chunks:
            return self._read_stored(layout, segment, stored)
        chosen = self.marked.is_marked[segment].nonzero().squeeze(1)
        values = self._read_stored(layout, segment, stored.index_fill(0, chosen, 0))
        where, place = segment[chosen], stored[chosen]
        vectors = values.new_zeros(len(chosen), self.width)
        for chunk in range(self.marked.chunks):
            present, row, column = self.marked.chunk(where, place, chunk)
            read = gather_packed(self.words, layout, where, row)
            vectors += self.marked.moved(where, read * present.unsqueeze(1), column)
        return values.index_copy(0, chosen, vectors)

    def _read_stored(self, layout: PackedSegments, segment: Tensor, stored: Tensor) -> Tensor:
        """Stored rows (N,) of their segments, or what is at these places of pairs and paths -> (N, W)."""
        if not self.paths.any_path:
            return self._read_pairs(layout, segment, stored)
        stored, walk = self.paths.split(segment, stored)
        values = self._read_pairs(layout, segment, stored)
        return self.paths.join(values, walk, gather_packed(self.words, layout, walk.segment, walk.rows))

    def _read_pairs(self, layout: PackedSegments, segment: Tensor, stored: Tensor) -> Tensor:
        """Stored rows (N,) of their segments, or the pairs at these places of theirs -> (N, W)."""
        if not self.pairs.kinds:
            return gather_packed(self.words, layout, segment, stored)
        stored, paired, second = self.pairs.split(segment, stored)
        values = gather_packed(self.words, layout, segment, stored)
        seconds = gather_packed(self.words, layout, segment[paired], second)
        return self.pairs.join(segment, values, paired, seconds)

    def _with_pool(self, pool: Segment, layout: PackedSegments, segment: Tensor, stored: Tensor) -> Tensor:
        """As `_read`, the look-ups of pooled segments block by block."""
        pooled = self.pool_address.pooled[segment]
        values = self._read(layout, segment, torch.where(pooled, 0, stored))
        chosen = pooled.nonzero().squeeze(1)
        where = segment[chosen]
        blocks = self.pool_address.blocks
        slots = self.pool_address(where, stored[chosen])
        read = gather_packed(self.words, layout, where.repeat_interleave(blocks), slots.flatten())
        vectors = read[:, : pool.dim].reshape(len(chosen), blocks * pool.dim)[:, : self.dim]
        return values.index_copy(0, chosen, nn.functional.pad(vectors, (0, self.width - self.dim)))

    def decode(self, field: int) -> Tensor:
        """All rows of a field as its look-ups return them, (R, D) float32."""
        rows, first = self.plan.fields[field].rows, int(self.first_rows[field])
        step = max(1, _CHUNK_VALUES // self.width)
        device = self.words.device
        parts = [
            self.stored(torch.arange(first + start, first + min(start + step, rows), device=device))
            for start in range(0, rows, step)
        ]
        values = torch.cat(parts)
        if field in self._projected:
            return values @ self.matrices[self._projected.index(field)]
        return values[:, : self.dim]


def _check_rows(rows: Tensor, bound: int) -> None:
    """As look-ups in C++ check rows (N,); on a GPU, which must be waited for, only in the checked mode."""
    if rows.device.type != "cpu":
        check_rows(rows, bound)
        return
    outside = (rows < 0) | (rows >= bound)
    if outside.any():
        checked(-1 - int(outside.nonzero()[0]), rows, bound, "row")


def _weights(bag: Bag) -> Tensor:
    """What each id's vector is multiplied by before its bag is summed, or averaged if it has no weights."""
    return torch.ones(len(bag.values), device=bag.values.device) if bag.weights is None else bag.shares()


def _packed_rows(plan: Plan, first_rows: Tensor, segment_index: Tensor) -> PackedRows:
    """Which rows each segment serves; first_rows (F,) of the fields."""
    segments = [segment for _, segment, _ in placed(plan)]
    is_coded = [segment.sharing is Sharing.CODEBOOK for segment in segments]
    fields = torch.tensor([index for index, _, _ in placed(plan)])
    counts = torch.tensor([0, *(len(field.segments) for field in plan.fields)]).cumsum(0)
    sharing = torch.tensor([segment.sharing for segment in segments])
    return PackedRows(
        start=first_rows[fields] + torch.tensor([segment.start for segment in segments]),
        field_start=first_rows[fields],
        field_segment=counts[fields],
        field=fields,
        buckets=torch.tensor([max(1, segment.stored_rows) for segment in segments]),
        code_bits=torch.tensor(
            [code_bits(s.stored_rows) if coded else 0 for s, coded in zip(segments, is_coded, strict=True)]
        ),
        code_at=torch.tensor([at for _, _, at in placed_index(plan)]),
        reads_row_0=sharing == Sharing.OOV,
        hashed=sharing == Sharing.HASHED,
        codes=nn.functional.pad(segment_index, (0, PAD)) if any(is_coded) else torch.zeros(1 + PAD).byte(),
        any_reads_row_0=bool((sharing == Sharing.OOV).any()),
        any_hashed=bool((sharing == Sharing.HASHED).any()),
        any_coded=any(is_coded),
        rows=sum(field.rows for field in plan.fields),
    )


def _matrices(packed: Packed, width: int) -> Tensor:
    """The fields' projections as (fields that have one, W, D) float32, their missing rows zero."""
    matrices = []
    at = 0
    for field in packed.plan.fields:
        if field.projection_dim:
            size = field.projection_dim * field.dim
            matrix = packed.projections[at : at + size].float().view(field.projection_dim, field.dim)
            matrices.append(nn.functional.pad(matrix, (0, 0, 0, width - field.projection_dim)))
            at += size
    return torch.stack(matrices) if matrices else torch.zeros(0, width, packed.plan.fields[0].dim)
