"""One optimizer step on the rows of a batch's look-ups, which may repeat, from the look-ups' gradients.

    g[u] = sum of gradient[n] over the look-ups n of distinct row u,    then `row_update` or `low_row_update`

In C++ finding distinct rows, summing and updating are one pass: the look-ups are sorted by row, and a row's
gradients are summed in registers where its update needs them. `dedupe`, `sum_repeats` and `row_update` one
after the other, which write four arrays of 64-bit places and the sums, take 1.7 times as long at dimension 16
and give the same bits.
"""

from ctypes import CDLL

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.dedupe import UINT32, dedupe, sum_repeats
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.low_row_update import (
    FORMATS,
    checked_low_update,
    low_row_update,
    low_row_values,
    native_low_row_update,
)
from autoembed_kernels.native.loader import native_for
from autoembed_kernels.row_update import (
    RowOptimizer,
    checked_update,
    native_row_update,
    row_update,
    serves_state,
)
from autoembed_kernels.row_update import reference as row_reference


def reference(
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """`repeated_row_update`, a row at a time."""
    sums: dict[int, Tensor] = {}
    for row, g in zip(rows.tolist(), gradient, strict=True):
        sums[row] = sums[row] + g if row in sums else g
    if sums:
        summed = torch.stack(list(sums.values()))
        row_reference(optimizer, weight, state, torch.tensor(list(sums)), summed, learning_rate)


def repeated_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """Update weight (R, D) and its state at rows (N,) int64, which may repeat, from gradient (N, D).

    Raises IndexError on a CPU where a row is out of range, and ValueError where shapes do not fit or state is
    missing; then nothing is changed.
    """
    if not torch.compiler.is_compiling():
        rows = checked_update(optimizer, weight, state, rows, gradient)
        gradient = gradient.contiguous()
        is_float32 = weight.dtype == gradient.dtype == torch.float32
        served = is_float32 and serves_state(optimizer, state)
        native = _native(weight, rows, gradient, *state.values()) if served else None
        if native is not None:
            native_row_update(native, optimizer, weight, state, rows, gradient, learning_rate, repeated=True)
            return
        if served and _on_gpu(weight, rows, gradient):
            _triton_update(optimizer, weight, None, state, rows, gradient, learning_rate, None)
            return
    unique, repeats = dedupe(rows, len(weight))
    summed = sum_repeats(gradient, repeats.order, repeats.starts)
    row_update(optimizer, weight, state, unique, summed, learning_rate)


def repeated_low_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    steps: Tensor | None,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: tuple[int, int] | None,
) -> None:
    """`repeated_row_update` of float16, bfloat16 or int8 rows; steps and chance as in `low_row_update`."""
    if not torch.compiler.is_compiling():
        rows = checked_low_update(optimizer, weight, steps, state, rows, gradient)
        gradient = gradient.contiguous()
        is_stored = weight.dtype in FORMATS and gradient.dtype == torch.float32
        served = is_stored and serves_state(optimizer, state)
        native = _native(weight, rows, gradient, steps, *state.values()) if served else None
        if native is not None:
            stored = (optimizer, weight, steps, state, rows, gradient, learning_rate)
            native_low_row_update(native, *stored, chance, repeated=True)
            return
        if served and _on_gpu(weight, rows, gradient):
            _triton_update(optimizer, weight, steps, state, rows, gradient, learning_rate, chance)
            return
    unique, repeats = dedupe(rows, len(weight))
    summed = sum_repeats(gradient, repeats.order, repeats.starts)
    values = low_row_values(weight, steps, unique)
    low_row_update(optimizer, weight, steps, state, unique, values, summed, learning_rate, chance)


def _on_gpu(weight: Tensor, rows: Tensor, gradient: Tensor) -> bool:
    return weight.is_contiguous() and triton_for(weight, rows, gradient)


def _triton_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    steps: Tensor | None,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: tuple[int, int] | None,
) -> None:
    """Both updates in Triton; nothing waits for the GPU, because no size depends on the rows."""
    from autoembed_kernels.gpu.dedupe import padded_dedupe
    from autoembed_kernels.gpu.row_update import triton_row_update

    check_rows(rows, len(weight))
    unique, *spans = padded_dedupe(rows, len(weight))
    held = (optimizer, weight, state, unique, gradient, learning_rate)
    triton_row_update(*held, spans=(spans[0], spans[1]), steps=steps, chance=chance)


def _native(weight: Tensor, rows: Tensor, *others: Tensor | None) -> CDLL | None:
    """The library, where its 32-bit rows and places suffice."""
    fits = max(len(weight), len(rows)) <= UINT32
    return native_for(weight, rows, *others) if fits else None
