"""Bags of rows in packed tables -> their sums or means, without the rows in between.

    values      = look_up_packed(words, segments, addresses, rows)              (N, W)
    sum[k]      = sum over offsets[k] <= n < offsets[k + 1] of weights[n] * values[n], or without weights
    out[b, f]   = sum[f * B + b], divided by the bag's length, at least 1, where means[f]

The bags come field by field, B of them in each. Every bag is summed from left to right in float32, but that
C++ may sum up to 256 rows of 8-bit codes with one scale as whole numbers first; an empty bag gives zeros.
"""

import ctypes

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices, check_shape
from autoembed_kernels.gather_packed import PackedSegments, check_words
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.look_up_packed import PackedRows, look_up_packed
from autoembed_kernels.native.loader import address, checked, native_for, threads


def pool_packed(
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    rows: Tensor,
    offsets: Tensor,
    means: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """rows (N,) int64 or int32, offsets (F * B + 1,) int64 from 0 to N, means (F,) bool, weights (N,) float32
    -> (B, F, W) float32.

    On a CPU with the C++ library, raises IndexError where a row does not exist and ValueError where offsets
    do not ascend from 0 to N; on a GPU that is the caller's to see to. Raises ValueError where shapes do not
    fit.
    """
    check_words(words)
    rows = as_indices("rows", rows, torch.int32)
    rows, offsets, means = rows.contiguous(), offsets.long().contiguous(), means.bool().contiguous()
    if weights is not None:
        check_shape("weights", weights, rows.shape, "one for each of rows")
        weights = weights.float().contiguous()
    native = None
    known = segments.readable and addresses.readable
    if known and not torch.compiler.is_compiling():
        native = native_for(words, rows, offsets, means, weights)
    if (
        native is None
        and not torch.compiler.is_compiling()
        and triton_for(words, rows, offsets, means, weights)
    ):
        from autoembed_kernels.gpu.pool_packed import triton_pool_packed

        examples = (len(offsets) - 1) // max(1, len(means))
        _check_shapes(rows, offsets, examples, len(means), weights)
        check_rows(rows, addresses.rows)
        return triton_pool_packed(words, segments, addresses, rows, offsets, means, weights)
    if native is None:
        return torch_pool_packed(words, segments, addresses, rows, offsets, means, weights)
    out = torch.empty((len(offsets) - 1) // max(1, len(means)), len(means), segments.width)
    return native_pool_packed(native, words, segments, addresses, rows, offsets, means, weights, out)


def _check_shapes(rows: Tensor, offsets: Tensor, examples: int, fields: int, weights: Tensor | None) -> None:
    if len(offsets) != examples * fields + 1 or (weights is not None and weights.shape != rows.shape):
        raise ValueError(
            f"{examples} x {fields} bags of {len(rows)} rows need {examples * fields + 1} offsets, got "
            f"{len(offsets)}, and as many weights as rows or none"
        )


def native_pool_packed(
    library: ctypes.CDLL,
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    rows: Tensor,
    offsets: Tensor,
    means: Tensor,
    weights: Tensor | None,
    out: Tensor,
) -> Tensor:
    """`pool_packed` into out (B, F, W), in one pass over the look-ups."""
    examples, fields, _ = out.shape
    _check_shapes(rows, offsets, examples, fields, weights)
    bad = library.autoembed_pool_packed(
        *(address(words), 8 * len(words)),
        *(ctypes.byref(segments.native), ctypes.byref(addresses.native)),
        *(address(rows), rows.element_size(), len(rows), address(offsets), examples, fields),
        *(address(weights), address(means), address(out), threads()),
    )
    if bad < -len(rows):
        raise ValueError(
            f"offsets of bag {-1 - len(rows) - bad} do not ascend from 0 to {len(rows)}, the number of rows"
        )
    checked(bad, rows, addresses.rows, "row")
    return out


def torch_pool_packed(
    words: Tensor,
    segments: PackedSegments,
    addresses: PackedRows,
    rows: Tensor,
    offsets: Tensor,
    means: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """`pool_packed` in torch, on any device, without a check of the offsets."""
    values = look_up_packed(words, segments, addresses, rows)
    if weights is not None:
        values = values * weights.unsqueeze(1)
    lengths = offsets.diff()
    bags = torch.repeat_interleave(torch.arange(len(lengths), device=rows.device), lengths)
    sums = values.new_zeros(len(lengths), segments.width).index_add(0, bags, values)
    by_field = sums.view(len(means), -1, segments.width)
    divisors = torch.where(means.unsqueeze(1), lengths.view(len(means), -1).clamp(min=1), 1)
    return (by_field / divisors.unsqueeze(2)).transpose(0, 1).contiguous()
