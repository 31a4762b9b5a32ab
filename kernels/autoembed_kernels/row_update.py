"""One optimizer step on some rows of a table and on their state, in place; other rows are not read.

With g the gradient of a row plus l2 times the row, t the row's own number of steps, and lr the rate:

    sgd              w -= lr g
    adagrad          s += g^2,                        w -= lr g / (sqrt(s) + eps)
    rowwise_adagrad  s += mean(g^2), one per row,     w -= lr g / (sqrt(s) + eps)
    adam             m += (1 - b1) (g - m),  v += (1 - b2) (g^2 - v)
                     w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

Adam is lazy: a row's moments move only in steps that look it up. torch's SparseAdam corrects their bias
by the number of steps of the whole table, which overstates the first step of a row met late by
(1 - b1) / sqrt(1 - b2), 3.2 times with the usual betas; `t` counts the row's steps instead.
"""

import math
from ctypes import CDLL
from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed_kernels.checked_rows import check_rows
from autoembed_kernels.checks import as_indices, check_dims, check_shape
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, checked, native_for, threads
from autoembed_kernels.operators import operators

# native/row_update.cpp numbers them in this order
_STATE = {
    "adam": ("moment", "square", "touches"),
    "adagrad": ("square_sum",),
    "rowwise_adagrad": ("square_sum",),
    "sgd": (),
}
OPTIMIZERS = tuple(_STATE)


@dataclass(frozen=True)
class RowOptimizer:
    """How rows are trained. `l2` is the coefficient of the penalty l2 / 2 * |row|^2 of touched rows."""

    name: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    l2: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in _STATE:
            raise ValueError(f"there is no row optimizer {self.name!r}; choose from {', '.join(OPTIMIZERS)}")

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the tensors that `state` makes."""
        return _STATE[self.name]

    def state(self, weight: Tensor) -> dict[str, Tensor]:
        """Zeroed state for weight (R, D): (R, D) each, `touches` (R,) int32, row-wise sums (R,)."""
        if self.name == "rowwise_adagrad":
            return {"square_sum": weight.new_zeros(len(weight))}
        made = {name: torch.zeros_like(weight) for name in self.state_names if name != "touches"}
        if self.name == "adam":
            made["touches"] = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)
        return made


def reference(
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """`row_update`, a row at a time."""
    for row, g in zip(rows.tolist(), gradient, strict=True):
        w = weight[row]
        g = g + optimizer.l2 * w
        if optimizer.name == "sgd":
            w -= learning_rate * g
        elif optimizer.name == "adam":
            first, second = optimizer.betas
            state["touches"][row] += 1
            t = int(state["touches"][row])
            m, v = state["moment"][row], state["square"][row]
            m += (1 - first) * (g - m)
            v += (1 - second) * (g**2 - v)
            w -= learning_rate * (m / (1 - first**t)) / ((v / (1 - second**t)).sqrt() + optimizer.eps)
        else:
            s = state["square_sum"]
            s[row] += g**2 if optimizer.name == "adagrad" else (g**2).mean()
            w -= learning_rate * g / (s[row].sqrt() + optimizer.eps)


def row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """Update weight (R, D) and its state at the distinct rows (U,) from gradient (U, D), in place.

    Raises IndexError on a CPU where a row is out of range, and ValueError where shapes do not fit or state is
    missing; then nothing is changed.
    """
    if torch.compiler.is_compiling():
        settings = (optimizer.name, optimizer.betas, optimizer.eps, optimizer.l2)
        operators().row_update(*settings, weight, *state_tensors(state), rows, gradient, learning_rate)
    else:
        eager_row_update(optimizer, weight, state, rows, gradient, learning_rate)


def eager_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """`row_update` itself."""
    rows = checked_update(optimizer, weight, state, rows, gradient)
    gradient = gradient.contiguous()
    served = _is_float32(weight, gradient) and serves_state(optimizer, state)
    native = native_for(weight, rows, gradient, *state.values()) if served else None
    if native is not None:
        native_row_update(native, optimizer, weight, state, rows, gradient, learning_rate)
        return
    check_rows(rows, len(weight))
    if served and weight.is_contiguous() and triton_for(weight, rows, gradient):
        from autoembed_kernels.gpu.row_update import triton_row_update

        triton_row_update(optimizer, weight, state, rows, gradient, learning_rate)
    else:
        torch_row_update(optimizer, weight, state, rows, gradient, learning_rate)


def checked_update(
    optimizer: RowOptimizer, weight: Tensor, state: dict[str, Tensor], rows: Tensor, gradient: Tensor
) -> Tensor:
    """The rows as int64. Raises ValueError where shapes do not fit or state is missing."""
    rows = as_indices("rows", rows)
    check_dims("weight", weight, "R, D")
    check_shape("gradient", gradient, (rows.shape[0], weight.shape[1]), "a row for each of rows")
    check_state(optimizer, weight, state)
    return rows


def check_state(optimizer: RowOptimizer, weight: Tensor, state: dict[str, Tensor]) -> None:
    """Raises ValueError where state of weight (R, D) is missing or has another shape."""
    whole = weight.shape
    by_row = (whole[0],)
    for name in optimizer.state_names:
        if name not in state:
            raise ValueError(
                f"{optimizer.name} needs the state {name!r}, got {sorted(state)}; "
                "`RowOptimizer.state` makes it"
            )
        shape = by_row if name == "touches" or optimizer.name == "rowwise_adagrad" else whole
        check_shape(name, state[name], shape, "state as `RowOptimizer.state` makes it")


def serves_state(optimizer: RowOptimizer, state: dict[str, Tensor]) -> bool:
    """Whether the state has the dtypes that C++ and Triton take: float32, `touches` int32."""
    for name in optimizer.state_names:
        if state[name].dtype is not (torch.int32 if name == "touches" else torch.float32):
            return False
    return True


def state_tensors(state: dict[str, Tensor]) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """What kernels call moment, square and touches, of any optimizer."""
    return state.get("moment"), state.get("square", state.get("square_sum")), state.get("touches")


def _is_float32(*tensors: Tensor) -> bool:
    return all(tensor.dtype == torch.float32 for tensor in tensors)


def native_row_update(
    library: CDLL,
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
    *,
    repeated: bool = False,
) -> None:
    """`row_update` in one pass over each row, native/row_update.cpp; `repeated`: of rows that repeat."""
    update = library.autoembed_repeated_row_update if repeated else library.autoembed_row_update
    bad = update(
        OPTIMIZERS.index(optimizer.name),
        *map(address, (weight, rows, gradient, *state_tensors(state))),
        *(len(rows), *weight.shape),
        *(learning_rate, optimizer.eps, optimizer.l2, *optimizer.betas),
        threads(),
    )
    checked(bad, rows, len(weight), "row")


def torch_row_update(
    optimizer: RowOptimizer,
    weight: Tensor,
    state: dict[str, Tensor],
    rows: Tensor,
    gradient: Tensor,
    learning_rate: float,
) -> None:
    """`row_update` in torch, on any device."""
    old = weight.index_select(0, rows)  # (U, D)
    if optimizer.l2:
        gradient = gradient.add(old, alpha=optimizer.l2)
    if optimizer.name == "sgd":
        change = gradient
    elif optimizer.name == "adam":
        change = _adam(optimizer, state, rows, gradient)
    else:
        change = _adagrad(optimizer, state["square_sum"], rows, gradient)
    weight.index_copy_(0, rows, old.sub_(change, alpha=learning_rate))


def _adam(optimizer: RowOptimizer, state: dict[str, Tensor], rows: Tensor, gradient: Tensor) -> Tensor:
    first, second = optimizer.betas
    gradient = gradient.to(state["moment"].dtype)  # lerp_ takes no other
    touches = state["touches"].index_select(0, rows).add_(1)
    moment = state["moment"].index_select(0, rows).lerp_(gradient, 1 - first)
    square = state["square"].index_select(0, rows).mul_(second).addcmul_(gradient, gradient, value=1 - second)
    state["touches"].index_copy_(0, rows, touches)
    state["moment"].index_copy_(0, rows, moment)
    state["square"].index_copy_(0, rows, square)
    steps = touches.to(gradient.dtype).unsqueeze(1)
    root = square.div_(-torch.expm1(steps * math.log(second))).sqrt_().add_(optimizer.eps)
    return moment.div_(root).div_(-torch.expm1(steps * math.log(first)))


def _adagrad(optimizer: RowOptimizer, square_sum: Tensor, rows: Tensor, gradient: Tensor) -> Tensor:
    if optimizer.name == "adagrad":
        total = square_sum.index_select(0, rows).addcmul_(gradient, gradient)
        square_sum.index_copy_(0, rows, total)
    else:
        total = square_sum.index_select(0, rows).add_(gradient.square().mean(1))
        square_sum.index_copy_(0, rows, total)
        total = total.unsqueeze(1)
    return gradient / total.sqrt().add_(optimizer.eps)
