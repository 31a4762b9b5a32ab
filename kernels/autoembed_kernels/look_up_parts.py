"""Look-ups of packed rows whose columns lie in parts, each with its width and scale.

`tails[s]` segments behind segment s hold further columns of its rows, in the same order of rows:

    s, stored = as in look_up_packed
    out[n]    = row `stored` of segment s, behind it of segments s + 1 .. s + tails[s] in turn, then zeros

A segment that goes on a row has no rows of its own: it starts where the segment before its own stops.
"""

import ctypes

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices, check_shape
from autoembed_kernels.gather_packed import PackedSegments, check_words, torch_gather_packed
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.look_up_packed import PackedRows, stored_rows
from autoembed_kernels.native.loader import address, checked, native_for, readable, threads

MOST_NATIVE = 255  # parts behind the first that native/look_up_parts.cpp counts, in a byte


def look_up_parts(
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    tails: Tensor,
    most: int,
    rows: Tensor,
    columns: int = 1,
) -> Tensor:
    """words of `as_words`, tails (S,) int64, `most` of them, rows (N,) int64 or int32 -> (N, W) float32.

    `columns`: as in `look_up_packed`. On a CPU with the C++ library, raises IndexError where a row is below 0
    or not below `addresses.rows`. Raises ValueError where shapes do not fit or words have another dtype.
    """
    rows = as_indices("rows", rows, torch.int32).contiguous()
    check_words(words)
    check_shape("tails", tails, segments.base.shape, "one for each segment")
    tails = tails.long()
    is_readable = segments.readable and addresses.readable and readable(tails)
    native = native_for(words, rows) if is_readable and most <= MOST_NATIVE else None
    if native is not None:
        out = torch.empty(len(rows), segments.width)
        return native_look_up_parts(native, words, segments, addresses, tails, rows, columns, out)
    check_rows(rows, addresses.rows)
    if triton_for(words, tails, rows):
        from autoembed_kernels.gpu.look_up_parts import triton_look_up_parts

        return triton_look_up_parts(words, segments, addresses, tails, most, rows)
    return torch_look_up_parts(words, segments, addresses, tails, most, rows)


def native_look_up_parts(
    library: ctypes.CDLL,
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    tails: Tensor,
    rows: Tensor,
    columns: int,
    out: Tensor,
) -> Tensor:
    """`look_up_parts` into out (N, W), native/look_up_parts.cpp."""
    bad = library.autoembed_look_up_parts(
        *(address(words), 8 * len(words)),
        *(ctypes.byref(segments.native), ctypes.byref(addresses.native), address(tails)),
        *(address(rows), rows.element_size(), len(rows), max(1, columns), address(out), threads()),
    )
    checked(bad, rows, addresses.rows, "row")
    return out


def torch_look_up_parts(
    words: Tensor, segments: PackedSegments, addresses: PackedRows, tails: Tensor, most: int, rows: Tensor
) -> Tensor:
    """`look_up_parts` in torch, on any device, without a check of the rows."""
    _, segment, stored = stored_rows(addresses, rows)
    values = torch_gather_packed(words, segments, segment, stored)
    begin = segments.dim[segment]  # (N,), the column at which the next part begins
    every = torch.arange(segments.width, device=rows.device)
    for part in range(1, 1 + most):
        chosen = (tails[segment] >= part).nonzero().squeeze(1)
        tail = segment[chosen] + part
        read = torch_gather_packed(words, segments, tail, stored[chosen])
        inside = every < segments.dim[tail].unsqueeze(1)
        target = (begin[chosen].unsqueeze(1) + every)[inside]
        values[chosen.unsqueeze(1).expand_as(inside)[inside], target] = read[inside]
        begin = begin.index_add(0, chosen, segments.dim[tail])
    return values
