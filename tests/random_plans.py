"""Random plans for property tests, and rows to pack under them."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import (
    BITS,
    MAX_CHUNKS,
    PROFILES,
    FieldPlan,
    Plan,
    Profile,
    Segment,
    Sharing,
    segment_index_bytes,
)
from autoembed.segment_index import pack_codes
from autoembed_kernels.listed_marks import pack_listed
from autoembed_kernels.lsq import Grid
from autoembed_kernels.marked_bits import pack_marks
from autoembed_kernels.path_mlp import path_rows
from autoembed_kernels.quotient_remainder import least_stored
from autoembed_kernels.signature_pool import MAX_KEYS


@st.composite
def plans(
    draw: st.DrawFn,
    profile: Profile | None = None,
    one_dim: bool = True,
    single_rows: bool = False,
    parts: bool = False,
) -> Plan:
    """Valid plans of 1..4 small fields; with `one_dim` all fields have one output dimension.

    `single_rows`: a look-up reads one stored row or none, no pair, block of a pool, marked chunk or tail; but
    with `parts` it may have tails.
    """
    profile = profile or draw(st.sampled_from(list(PROFILES.values())))
    dim = draw(st.integers(1, 17))
    shared = profile.row_scale_bytes == 0
    scales = draw(st.integers(1, 3))
    floats = [p for p in profile.precisions if not p.startswith("int")]
    block, pool_precision = draw(st.integers(1, dim)), draw(st.sampled_from(floats))
    may_pool = (
        one_dim
        and not single_rows
        and profile.row_bytes(block, pool_precision) * 8 == block * BITS[pool_precision]
    )
    pool_rows = draw(st.integers(1, 9)) if may_pool and draw(st.booleans()) else 0
    fields = []
    any_pooled = False
    for number in range(draw(st.integers(1, 4))):
        field_dim = dim if one_dim else draw(st.integers(1, 17))
        projection_dim = draw(st.sampled_from([0, 0, 3, 8]))
        segments: list[Segment] = []
        start = 0
        for rows in draw(st.lists(st.integers(1, 7), min_size=1, max_size=5)):
            if pool_rows and not projection_dim and draw(st.booleans()):
                stored = pool_rows if not any_pooled else 0
                any_pooled = True
                sharing = draw(st.sampled_from([Sharing.POOL, Sharing.SIGNATURE_POOL]))
                keys = draw(st.integers(1, MAX_KEYS)) if sharing is Sharing.SIGNATURE_POOL else 1
                pooled = Segment(start, start + rows, sharing, stored, block, pool_precision, chunks=keys)
                segments.append(pooled)
                start += rows
                continue
            width = projection_dim or field_dim
            segments.append(draw(_segment(profile, start, start + rows, width, shared, scales, single_rows)))
            if shared and (parts or not single_rows):
                segments += draw(_tails(segments[-1], width, scales))
            start += rows
        fields.append(FieldPlan(f"field {number}", start, field_dim, tuple(segments), projection_dim))
    return Plan(profile, tuple(fields))


@st.composite
def _tails(draw: st.DrawFn, head: Segment, width: int, scales: int) -> list[Segment]:
    """Up to three tails behind own rows of integer codes."""
    tails: list[Segment] = []
    left = width - head.dim
    goes_on = head.sharing in (Sharing.OWN, Sharing.CODEBOOK) and head.is_integer
    while goes_on and left and len(tails) < 3 and draw(st.booleans()):
        dim, precision = draw(st.integers(1, left)), f"int{draw(st.integers(1, 8))}"
        grid = draw(st.booleans()), draw(st.integers(0, scales - 1))
        tails.append(Segment(head.stop, head.stop, Sharing.TAIL, head.stored_rows, dim, precision, *grid))
        left -= dim
    return tails


@st.composite
def _segment(
    draw: st.DrawFn,
    profile: Profile,
    start: int,
    stop: int,
    width: int,
    shared: bool,
    scales: int,
    single_rows: bool,
) -> Segment:
    kinds = [Sharing.OWN, Sharing.OWN, Sharing.HASHED, Sharing.CODEBOOK, Sharing.OOV, Sharing.ZERO]
    kinds += [] if single_rows else [*(s for s in Sharing if s.is_marked), Sharing.QUOTIENT_PATH]
    sharing = draw(st.sampled_from(kinds))
    if sharing is Sharing.OOV and start == 0:
        sharing = Sharing.ZERO
    rows = stop - start
    if rows >= 4 and not single_rows and draw(st.booleans()):
        sharing = draw(st.sampled_from([s for s in Sharing if s.is_paired]))
        if sharing is Sharing.QUOTIENT_CONCATENATE and width < 2:
            sharing = Sharing.QUOTIENT_ADD
    if sharing in (Sharing.OOV, Sharing.ZERO):
        return Segment(start, stop, sharing)
    if sharing is Sharing.QUOTIENT_PATH:
        eighths, dim = draw(st.integers(1, 2)), draw(st.integers(1, width))
        networks = draw(st.integers(1, rows))
        stored = -(-rows // networks) + networks * path_rows(8 * eighths, dim)
        floats = [p for p in profile.precisions if not p.startswith("int")]
        return Segment(start, stop, sharing, stored, dim, draw(st.sampled_from(floats)), chunks=eighths)
    chunks = (
        draw(st.integers(1, min(width, MAX_CHUNKS))) if sharing in (Sharing.MARKED, Sharing.LISTED) else 1
    )
    if sharing.is_marked:
        stored_rows = draw(st.integers(1, rows * chunks))
    elif sharing.is_paired:
        stored_rows = draw(st.integers(least_stored(rows), rows))
    else:
        stored_rows = rows if sharing is Sharing.OWN else draw(st.integers(1, rows))
    precision = draw(st.sampled_from(profile.precisions))
    integer = precision.startswith("int")
    return Segment(
        start,
        stop,
        sharing,
        stored_rows,
        draw(st.integers(1, width // 2 if sharing is Sharing.QUOTIENT_CONCATENATE else width // chunks)),
        precision,
        integer and draw(st.booleans()),
        draw(st.integers(0, scales - 1)) if integer and shared else None,
        draw(st.sampled_from([None, 0, 1])) if integer and shared else None,
        chunks,
    )


Rows = dict[tuple[int, int], Tensor]


def packed_with_rows(plan: Plan, seed: int, row_scale: float | None = None) -> tuple[Packed, Rows]:
    """A plan packed with random rows, and the rows (field, number of its segment) -> (stored_rows, dim)."""
    numbers = iter(
        (index, number)
        for index, field in enumerate(plan.fields)
        for number, segment in enumerate(field.segments)
        if segment.stored_rows or segment_index_bytes(segment)
    )
    generator = torch.Generator().manual_seed(seed)
    rows: Rows = {}

    def rows_of(_: int, segment: Segment) -> SegmentRows:
        values = torch.randn(segment.stored_rows, segment.dim, generator=generator)
        rows[next(numbers)] = values
        own_index = random_marks(segment, generator) if segment.sharing.is_marked else None
        if segment.sharing is Sharing.CODEBOOK:
            codes = torch.randint(0, segment.stored_rows, (segment.rows,), generator=generator)
            own_index = pack_codes(segment, codes)
        if segment.sharing is Sharing.SIGNATURE_POOL:
            own_index = torch.randint(0, 256, (8 * segment.rows,), generator=generator).to(torch.uint8)
        return SegmentRows(values, None if row_scale is None else torch.tensor(row_scale), own_index)

    scales = torch.rand(plan.scale_count, generator=generator) + 0.05
    offsets = [torch.randn(dim, generator=generator) for dim in plan.offset_dims()]
    projections = [
        torch.randn(f.projection_dim, f.dim, generator=generator) for f in plan.fields if f.projection_dim
    ]
    return pack(plan, rows_of, scales, offsets, projections), rows


def random_marks(segment: Segment, generator: torch.Generator) -> Tensor:
    """Index bytes that mark as many chunks as are stored; fewer where some of the rows are hashed ones."""
    places = segment.rows * segment.chunks
    marked = segment.stored_rows
    if segment.sharing is Sharing.MARKED_OR_HASHED:
        marked = int(torch.randint(0, min(marked, places + 1), (), generator=generator))
    marks = torch.zeros(places, dtype=torch.bool)
    marks[torch.randperm(places, generator=generator)[:marked]] = True
    return pack_listed(marks) if segment.sharing is Sharing.LISTED else pack_marks(marks)


def grid_of(segment: Segment) -> Grid:
    return Grid(segment.bits, segment.mid_rise)
