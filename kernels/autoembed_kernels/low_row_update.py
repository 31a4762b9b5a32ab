"""One optimizer step on rows stored in 16 or 8 bits: read as float32, updated and cast back.

A row of 8 bits is codes c of -127 .. 127 and a step s of its own: the value is c s, with s = max |w| / 127 of
the updated row, rounded up to 8 significant bits and at least 2^-14, so that float16 holds s exactly (and
128 s, too).

    w' = `row_update` of w = c s in float32,      s' = step of w',      c' = cast(w' / s')

Casts go to the nearest, or up or down by chance: with (seed, update) what casts column j of row r is
number j of `row_chances(seed, update, r)`.
"""

from ctypes import CDLL

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices, check_dims, check_shape
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, checked, native_for, threads
from autoembed_kernels.operators import operators
from autoembed_kernels.philox import row_chances
from autoembed_kernels.row_update import (
    OPTIMIZERS,
    RowOptimizer,
    checked_update,
    row_update,
    serves_state,
    state_tensors,
)
from autoembed_kernels.stochastic_round import stochastic_codes, stochastic_round

LARGEST_CODE = 127
# native/low_row_update.cpp numbers them in this order
FORMATS = (torch.float16, torch.bfloat16, torch.int8)


def low_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    steps: Tensor | None,
    state: dict[str, Tensor],
    rows: Tensor,
    values: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: tuple[int, int] | None,
) -> None:
    """Update weight (R, D) float16, bfloat16 or int8 and its float32 state at distinct rows (U,), in place.

    Raises IndexError on a CPU where a row is out of range, and ValueError where shapes do not fit or state or
    steps are missing; then nothing is changed.

    steps (R,) float16 of int8 rows, else None. values (U, D) are `low_row_values` of the rows and may be
    overwritten; gradient (U, D) float32. chance: seed and number of the update; None casts to the nearest.
    """
    if torch.compiler.is_compiling():
        settings = (optimizer.name, optimizer.betas, optimizer.eps, optimizer.l2)
        # operators take 64-bit integers with a sign
        chances = [] if chance is None else [(chance[0] + 2**63) % 2**64 - 2**63, chance[1]]
        operators().low_row_update(
            *settings, weight, steps, *state_tensors(state), rows, values, gradient, learning_rate, chances
        )
    else:
        eager_low_row_update(optimizer, weight, steps, state, rows, values, gradient, learning_rate, chance)


def eager_low_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    steps: Tensor | None,
    state: dict[str, Tensor],
    rows: Tensor,
    values: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: tuple[int, int] | None,
) -> None:
    """`low_row_update` itself."""
    rows = checked_low_update(optimizer, weight, steps, state, rows, gradient)
    check_shape("values", values, gradient.shape, "those of `low_row_values`")
    gradient = gradient.contiguous()
    is_float32 = gradient.dtype == values.dtype == torch.float32
    served = is_float32 and weight.dtype in FORMATS and serves_state(optimizer, state)
    native = native_for(weight, steps, rows, gradient, *state.values()) if served else None
    if native is not None:
        native_low_row_update(native, optimizer, weight, steps, state, rows, gradient, learning_rate, chance)
        return
    check_rows(rows, len(weight))
    if weight.is_contiguous() and triton_for(weight, rows, gradient):
        from autoembed_kernels.gpu.row_update import triton_row_update

        held = (optimizer, weight, state, rows, gradient, learning_rate)
        triton_row_update(*held, steps=steps, chance=chance)
    else:
        torch_low_row_update(optimizer, weight, steps, state, rows, values, gradient, learning_rate, chance)


def checked_low_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    steps: Tensor | None,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
) -> Tensor:
    """The rows as int64. Raises ValueError where shapes do not fit, or steps that int8 rows alone have."""
    rows = checked_update(optimizer, weight, state, rows, gradient)
    if (weight.dtype == torch.int8) != (steps is not None):
        given = "without" if steps is None else "with"
        raise ValueError(f"rows of int8 have steps and no others do, got {weight.dtype} {given} steps")
    if steps is not None:
        check_shape("steps", steps, weight.shape[:1], "one for each row of the weight")
        if steps.dtype != torch.float16:
            raise ValueError(f"steps has dtype {steps.dtype}, expected float16, in which they are stored")
    return rows


def native_low_row_update(
    library: CDLL,
    optimizer: RowOptimizer,
    weight: Tensor,
    steps: Tensor | None,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: tuple[int, int] | None,
    *,
    repeated: bool = False,
) -> None:
    """`low_row_update` in one pass over each row, which it reads anew, native/low_row_update.cpp.

    `repeated`: of rows that repeat.
    """
    seed, update = chance or (0, 0)
    of_rows = library.autoembed_repeated_low_row_update if repeated else library.autoembed_low_row_update
    bad = of_rows(
        *(OPTIMIZERS.index(optimizer.name), FORMATS.index(weight.dtype)),
        *map(address, (weight, steps, rows, gradient, *state_tensors(state))),
        *(len(rows), *weight.shape),
        *(learning_rate, optimizer.eps, optimizer.l2, *optimizer.betas),
        *(chance is not None, seed % 2**64, update % 2**32, threads()),
    )
    checked(bad, rows, len(weight), "row")


def low_row_values(weight: Tensor, steps: Tensor | None, rows: Tensor) -> Tensor:
    """The values (U, D) float32 of rows (U,), which may repeat.

    Raises IndexError on a CPU where a row is out of range, and ValueError where shapes do not fit.
    """
    serves = weight.dtype in FORMATS and (weight.dtype == torch.int8) == (steps is not None)
    serves = serves and (steps is None or steps.dtype == torch.float16)
    rows = as_indices("rows", rows)
    check_dims("weight", weight, "R, D")
    if steps is not None:
        check_shape("steps", steps, weight.shape[:1], "one for each row of the weight")
    if serves and not torch.compiler.is_compiling():
        native = native_for(weight, steps, rows)
        if native is not None:
            return native_low_row_values(native, weight, steps, rows)
        if weight.is_contiguous() and triton_for(weight, steps, rows):
            from autoembed_kernels.gpu.take_rows import triton_take_rows

            check_rows(rows, len(weight))
            return triton_take_rows(weight, rows, steps)
    values = weight.index_select(0, rows).float()
    return values if steps is None else values * steps[rows].float().unsqueeze(1)


def native_low_row_values(library: CDLL, weight: Tensor, steps: Tensor | None, rows: Tensor) -> Tensor:
    """`low_row_values`, native/take_low_rows.cpp."""
    out = weight.new_empty(len(rows), weight.shape[1], dtype=torch.float32)
    bad = library.autoembed_take_low_rows(
        FORMATS.index(weight.dtype),
        *map(address, (weight, steps, rows)),
        *(len(rows), *weight.shape),
        *(address(out), threads()),
    )
    checked(bad, rows, len(weight), "row")
    return out


def torch_low_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    steps: Tensor | None,
    state: dict[str, Tensor],
    rows: Tensor,
    values: Tensor,
    gradient: Tensor,
    learning_rate: float,
    chance: tuple[int, int] | None,
) -> None:
    """`low_row_update` on any device: float32 copies of the rows and their state, updated and put back."""
    chosen = {name: state[name].index_select(0, rows) for name in optimizer.state_names}
    places = torch.arange(len(rows), device=rows.device)
    row_update(optimizer, values, chosen, places, gradient, learning_rate)
    for name, moved in chosen.items():
        state[name].index_copy_(0, rows, moved)
    write_low_rows(weight, steps, rows, values, chance)


def write_low_rows(
    weight: Tensor, steps: Tensor | None, rows: Tensor, values: Tensor, chance: tuple[int, int] | None
) -> None:
    """Store values (U, D) float32 in distinct rows (U,)."""
    chances = None if chance is None else row_chances(*chance, rows, values.shape[1])
    if steps is not None:
        found = row_steps(values)
        steps.index_copy_(0, rows, found.squeeze(1).half())
        stored = to_codes(values, found, chances)
    elif chances is None:
        stored = values.to(weight.dtype)
    else:
        stored = stochastic_round(values, chances, weight.dtype)
    weight.index_copy_(0, rows, stored)


def row_steps(values: Tensor) -> Tensor:
    """values (N, D) -> the step of every row (N, 1) float32, which float16 and bfloat16 hold exactly."""
    # in float64, where 127 s / 127 is s again: a row that does not move keeps its step
    steps = (values.abs().amax(1, keepdim=True).double() / LARGEST_CODE).float().clamp(min=2.0**-14)
    # up, not to the nearest: no code may exceed the largest
    return ((steps.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)


def to_codes(values: Tensor, steps: Tensor, chances: Tensor | None) -> Tensor:
    """values (N, D) -> int8 codes by chance, or to the nearest without chances."""
    if chances is not None:
        return stochastic_codes(values, steps, chances, -LARGEST_CODE, LARGEST_CODE)
    return (values / steps).round().clamp(-LARGEST_CODE, LARGEST_CODE).to(torch.int8)
