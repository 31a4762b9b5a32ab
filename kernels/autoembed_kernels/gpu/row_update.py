"""Row updates on a GPU in one kernel: repeated gradients summed, optimizer, cast, state. See `row_update`.

A program serves BLOCK distinct rows and all columns, or one row that very many look-ups read
(`gpu/dedupe.py`); their gradients, moments and new values stay in registers between being read and written
once. Rows may be stored as float32, float16, bfloat16 or int8 codes with a step each (`low_row_update`), cast
by chance with the numbers of `row_chances` or to the nearest.

Numbers that change from step to step (rate, seed, number of the update) lie in memory, where they can change
between plays of a CUDA graph.
"""

import math
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.dedupe import (
    CHUNK,
    beside,
    chunk_places,
    chunk_sums,
    heavy_row,
    heavy_sum,
    heavy_warps,
    is_heavy,
    joined,
    light_sum,
    light_tile,
    span_of,
)
from autoembed_kernels.gpu.philox import LEAST_COLUMNS, chances_of_rows, seed_and_step
from autoembed_kernels.gpu.present import capturing, filled, launches
from autoembed_kernels.gpu.stochastic_round import to_codes, to_nearest_bfloat16, to_sixteen_bits
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, state_tensors

# On an H200 programs of 1024 values, or of 2 warps, take 1.2 to 1.6 times as long in float32
VALUES = 512  # of a program
WARPS = 4
_ADAM, _ADAGRAD, _ROWWISE = (
    tl.constexpr(OPTIMIZERS.index(name)) for name in ("adam", "adagrad", "rowwise_adagrad")
)
STORED = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3}
_FP16, _BF16, _INT8 = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit
def _row_steps(values):
    """`row_steps` of values (BLOCK, COLUMNS) whose unused columns are zero -> (BLOCK,)."""
    largest = tl.max(tl.abs(values), axis=1)
    steps = tl.maximum((largest.to(tl.float64) / 127.0).to(tl.float32), 2.0**-14)
    return ((steps.to(tl.uint32, bitcast=True) + 0xFFFF) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def row_change(g, row, at, here, live, dim, moment, square, touches, numbers, OPTIMIZER: tl.constexpr):
    """Gradients (BLOCK, COLUMNS) of rows (BLOCK,), zero where not live -> what the rate multiplies.

    The state of rows that are `here` makes its step. at: where their values lie. Several threads may hold the
    same number, so that all have read before one writes: what is loaded before the call may be stored after.
    """
    eps = tl.load(numbers + 1).to(tl.float32)
    if OPTIMIZER == _ADAM:
        kept1, kept2 = tl.load(numbers + 3), tl.load(numbers + 4)
        t = tl.load(touches + row, mask=here, other=0) + 1
        m = tl.load(moment + at, mask=live, other=0.0)
        m += (1.0 - kept1).to(tl.float32) * (g - m)
        v = tl.load(square + at, mask=live, other=0.0) * kept2.to(tl.float32)
        v += (1.0 - kept2).to(tl.float32) * g * g
        tl.debug_barrier()
        tl.store(touches + row, t, mask=here)
        tl.store(moment + at, m, mask=live)
        tl.store(square + at, v, mask=live)
        # in float64, where 1 - beta^t keeps its digits after the first step, too
        one_less1 = (1.0 - tl.exp(t.to(tl.float64) * tl.load(numbers + 5))).to(tl.float32)
        one_less2 = (1.0 - tl.exp(t.to(tl.float64) * tl.load(numbers + 6))).to(tl.float32)
        root = tl.sqrt_rn(v / one_less2[:, None]) + eps
        change = m / root / one_less1[:, None]
    elif OPTIMIZER == _ADAGRAD:
        total = tl.load(square + at, mask=live, other=0.0) + g * g
        tl.debug_barrier()
        tl.store(square + at, total, mask=live)
        change = g / (tl.sqrt_rn(total) + eps)
    elif OPTIMIZER == _ROWWISE:
        total = tl.load(square + row, mask=here, other=0.0) + tl.sum(g * g, axis=1) / dim
        tl.debug_barrier()
        tl.store(square + row, total, mask=here)
        change = g / (tl.sqrt_rn(total) + eps)[:, None]
    else:
        tl.debug_barrier()
        change = g
    return change


@triton.jit
def _update_rows(
    weight, moment, square, touches, steps, numbers, chance, row, here, g, dim,
    OPTIMIZER: tl.constexpr, STORED: tl.constexpr, CHANCE: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One step on distinct rows (BLOCK,) int64 where `here`, from their gradients g (BLOCK, COLUMNS)."""
    column = tl.arange(0, COLUMNS)[None, :]
    live = here[:, None] & (column < dim)
    at = row[:, None] * dim + column
    old = tl.load(weight + at, mask=live, other=0.0).to(tl.float32)
    if STORED == _INT8:
        old = old * tl.load(steps + row, mask=here, other=0.0).to(tl.float32)[:, None]
    g = tl.where(live, g + tl.load(numbers + 2).to(tl.float32) * old, 0.0)
    change = row_change(g, row, at, here, live, dim, moment, square, touches, numbers, OPTIMIZER)
    new = tl.where(live, old - tl.load(numbers).to(tl.float32) * change, 0.0)

    if CHANCE:
        chances = chances_of_rows(tl.load(chance), tl.load(chance + 1), row, COLUMNS)
    if STORED == _INT8:
        step = _row_steps(new)
        tl.store(steps + row, step.to(tl.float16), mask=here)
    if CHANCE:
        if STORED == _INT8:
            stored = to_codes(new, step[:, None], chances, -127.0, 127.0).to(tl.int8)
        else:
            stored = to_sixteen_bits(new, chances, STORED == _FP16)
    elif STORED == _INT8:
        # adding 1.5 2^23 leaves no bits for a fraction
        codes = (tl.div_rn(new, tl.broadcast_to(step[:, None], new.shape)) + 12582912.0) - 12582912.0
        stored = tl.minimum(tl.maximum(codes, -127.0), 127.0).to(tl.int8)
    elif STORED == _FP16:
        stored = new.to(tl.float16)
    elif STORED == _BF16:
        stored = to_nearest_bfloat16(new)
    else:
        stored = new
    tl.store(weight + at, stored, mask=live)


@triton.jit
def row_update_kernel(
    weight, rows, gradient, moment, square, touches, steps, numbers, chance, order, starts,
    distinct, lookups, dim,
    OPTIMIZER: tl.constexpr, STORED: tl.constexpr, CHANCE: tl.constexpr, REPEATED: tl.constexpr,
    BLOCK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Rows whose gradients are summed already, or, where REPEATED, the light ones of `dedupe`."""
    u = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    if REPEATED:
        start, stop = span_of(starts, u, distinct, lookups)
        # places behind the last distinct row have no look-up
        here = (start < stop) & (is_heavy(start, stop) == 0)
        g = light_sum(gradient, order, start, tl.where(here, stop, start), dim, BLOCK, COLUMNS)
    else:
        column = tl.arange(0, COLUMNS)[None, :]
        here = u < distinct
        g = tl.load(gradient + u[:, None] * dim + column, mask=here[:, None] & (column < dim), other=0.0)
    row = tl.load(rows + u, mask=here, other=0).to(tl.int64)
    _update_rows(
        weight, moment, square, touches, steps, numbers, chance, row, here, g, dim,
        OPTIMIZER, STORED, CHANCE, COLUMNS,
    )  # fmt: skip


@triton.jit
def heavy_row_update_kernel(
    weight, rows, gradient, moment, square, touches, steps, numbers, chance, order, starts,
    chunk_rows, chunk_sums, distinct, lookups, dim,
    OPTIMIZER: tl.constexpr, STORED: tl.constexpr, CHANCE: tl.constexpr,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The heavy rows of `dedupe`, each by the program of the first chunk that it fills."""
    chunk = tl.program_id(0).to(tl.int64)
    u, start, stop, mine = heavy_row(starts, chunk_rows, chunk, distinct, lookups)
    if mine:
        g = heavy_sum(gradient, order, chunk_sums, chunk, start, stop, dim, CHUNK, COLUMNS)[None, :]
        row = tl.zeros([1], tl.int64) + tl.load(rows + u).to(tl.int64)
        _update_rows(
            weight, moment, square, touches, steps, numbers, chance, row, row >= 0, g, dim,
            OPTIMIZER, STORED, CHANCE, COLUMNS,
        )  # fmt: skip


def numbers_of(optimizer: RowOptimizer, learning_rate: float, device: torch.device) -> Tensor:
    """rate, eps, l2, both betas and their logarithms as the kernel reads them, (7,) float64."""
    logs = [math.log(beta) if beta > 0 else -math.inf for beta in optimizer.betas]
    held = [learning_rate, optimizer.eps, optimizer.l2, *optimizer.betas, *logs]
    return filled(held, torch.float64, device)


_kept_numbers = lru_cache(maxsize=64)(numbers_of)


def numbers_for(optimizer: RowOptimizer, learning_rate: float, like: Tensor) -> Tensor:
    """`numbers_of`, kept for as long as rates do not change; a CUDA graph gets numbers of its own."""
    make = numbers_of if capturing(like) else _kept_numbers
    return make(optimizer, learning_rate, like.device)


@launches
def triton_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float | Tensor,
    *,
    spans: tuple[Tensor, Tensor] | None = None,
    steps: Tensor | None = None,
    chance: tuple[int, int] | Tensor | None = None,
) -> None:
    """`row_update`, and `low_row_update` of a weight that is not float32; no check of the rows.

    gradient: (U, D) of the distinct rows, or with `spans`, order and starts of `Repeats`, (N, D) of the
    look-ups. learning_rate may be `numbers_of` and chance `seed_and_step` where a CUDA graph is to read them
    anew.
    """
    if rows.numel() == 0:
        return
    gradient = gradient.contiguous()
    numbers = learning_rate
    if not isinstance(numbers, Tensor):
        numbers = numbers_for(optimizer, numbers, weight)
    if chance is not None and not isinstance(chance, Tensor):
        chance = seed_and_step(*chance, weight.device)
    block, columns = light_tile(weight.shape[1], VALUES, LEAST_COLUMNS)
    held = (weight, rows, gradient, *state_tensors(state), steps, numbers, chance)
    sizes = (len(rows), len(gradient), weight.shape[1])
    kind = {
        "OPTIMIZER": OPTIMIZERS.index(optimizer.name),
        "STORED": STORED[weight.dtype],
        "CHANCE": chance is not None,
    }
    order, starts = spans or (None, None)
    any_heavy = spans is not None and len(gradient) >= CHUNK
    if spans is not None and any_heavy:
        chunk_rows, sums = chunk_places(gradient)
        with beside(gradient):
            chunk_sums(gradient, *spans, chunk_rows, sums)
            heavy_row_update_kernel[(len(chunk_rows),)](
                *(*held, *spans, chunk_rows, sums, *sizes),
                **kind,
                CHUNK=CHUNK,
                COLUMNS=columns,
                num_warps=heavy_warps(columns),
            )
    row_update_kernel[(triton.cdiv(len(rows), block),)](
        *(*held, order, starts, *sizes),
        **kind,
        REPEATED=spans is not None,
        BLOCK=block,
        COLUMNS=columns,
        num_warps=WARPS,
    )
    if any_heavy:
        joined(gradient)
