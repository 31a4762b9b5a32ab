"""A plan as the per-segment numbers by which packed rows are found and decoded."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoembed.plan import Plan, Segment, placed
from autoembed_kernels.gather_packed import BF16, FP16, FP32, INTEGER, PackedSegments

_KINDS = {"fp16": FP16, "bf16": BF16, "fp32": FP32}


def packed_segments(plan: Plan, scales: Tensor, offsets: Tensor, width: int) -> PackedSegments:
    """One entry per segment of the plan, in file order; rows are returned `width` values wide.

    scales (S,) and offsets (all of them behind one another) are the tensors of the tables file.
    """
    segments = [segment for _, segment, _ in placed(plan)]
    bases = [at for _, _, at in placed(plan)]
    profile = plan.profile
    sizes = [profile.row_bytes(s.dim, s.precision) if s.stored_rows else 0 for s in segments]
    pool = plan.pool
    if pool is not None:
        # every segment that reads the pool reads it where it is stored, from any value on
        first = segments.index(pool)
        for number in (n for n, s in enumerate(segments) if s.sharing.is_pooled):
            segments[number], bases[number] = pool, bases[first]
            sizes[number] = pool.bits // 8
    whole = profile.row_scale_bytes == 4  # the front holds a bias too, in place of shift and offset
    offset_rows = torch.zeros(1 + len(plan.offset_dims()), width)  # the last row is "no offset"
    at = 0
    for row, dim in enumerate(plan.offset_dims()):
        offset_rows[row, :dim] = offsets[at : at + dim]
        at += dim
    stores = [segment for segment in segments if segment.stored_rows]
    integers = [segment.is_integer for segment in segments]
    return PackedSegments(
        base=torch.tensor(bases),
        row_bytes=torch.tensor(sizes),
        dim=torch.tensor([s.dim if s.stored_rows else 0 for s in segments]),
        bits=torch.tensor([s.bits if s.is_integer else 8 for s in segments]),
        kind=torch.tensor([_kind(s) for s in segments], dtype=torch.uint8),
        front=torch.tensor([profile.row_scale_bytes if integer else 0 for integer in integers]),
        shift=torch.tensor(
            [_shift(s) if s.is_integer and not whole else 0.0 for s in segments], dtype=torch.float32
        ),
        scale=torch.tensor([0.0 if s.scale is None else float(scales[s.scale]) for s in segments]),
        offset=torch.tensor([len(offset_rows) - 1 if s.offset is None else s.offset for s in segments]),
        offsets=offset_rows,
        kinds=tuple(sorted({_kind(s) for s in stores})),
        row_scales=profile.row_scale_bytes >= 2,
        row_biases=whole,
        any_narrow=any(s.stored_rows == 0 or s.dim < width for s in segments),
        any_offset=any(s.offset is not None for s in segments),
        width=width,
        whole_rows=_whole_rows(segments, bases, sizes, width),
    )


def _whole_rows(segments: Sequence[Segment], bases: Sequence[int], sizes: Sequence[int], width: int) -> bool:
    """Whether all rows are `width` floats of one kind and begin at multiples of 16 bytes."""
    full = all(s.stored_rows and s.dim == width and not s.is_integer for s in segments)
    alike = len({s.precision for s in segments}) == 1
    return full and alike and not any(number % 16 for number in (*bases, *sizes))


def _kind(segment: Segment) -> int:
    return _KINDS.get(segment.precision, INTEGER)


def _shift(segment: Segment) -> float:
    """What a code is moved by before it is scaled: codes are stored from 0 on."""
    half = 1 << (segment.bits - 1)
    return 0.5 - half if segment.mid_rise else -half
