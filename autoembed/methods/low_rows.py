"""Rows stored in 16 or 8 bits while training, too; each step updates its rows in float32 and casts them back.

How a row of 8 bits is written: `autoembed_kernels.low_row_update`. Packed rows hold its step exactly in half
precision, and FBGEMM's bias of 128 steps, too.
"""

import torch
from torch import Tensor, nn

from autoembed_kernels.large_pages import in_large_pages
from autoembed_kernels.low_row_update import low_row_values
from autoembed_kernels.repeated_update import repeated_low_row_update
from autoembed_kernels.row_update import RowOptimizer


class LowRows(nn.Module):
    """A flat array of rows (R, D) of float16, bfloat16 or int8 codes, with float32 optimizer state of each.

    steps (R,) float16 of int8 rows, else None. seed: rows are cast stochastically, by bits that depend on
    the seed, the number of the update, the row and the column alone; None: to the nearest. As in
    `autoembed.tables.RowStore`, weight and state are buffers, and only weight and steps are part of
    `state_dict`.
    """

    weight: Tensor
    steps: Tensor | None

    def __init__(
        self, weight: Tensor, optimizer: RowOptimizer, seed: int | None, steps: Tensor | None = None
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.seed = seed
        self.updates = 0
        self.register_buffer("weight", in_large_pages(weight))
        self.register_buffer("steps", steps)
        # the optimizer shapes its state after float32 rows, which are never made: this one takes no bytes
        like = torch.zeros((), device=weight.device).expand(weight.shape)
        for name, state in optimizer.state(like).items():
            self.register_buffer(name, in_large_pages(state.contiguous()), persistent=False)
        self._pending: tuple[Tensor, Tensor] | None = None

    def look_up(self, rows: Tensor) -> Tensor:
        """Looked-up rows (N,), which may repeat -> their float32 values (N, D).

        While gradients are recorded the values are a leaf, and `update` will use its gradient.
        """
        values = self.read(rows)
        if torch.is_grad_enabled():
            values.requires_grad_()
            self._pending = (rows, values)
        return values

    def read(self, rows: Tensor) -> Tensor:
        """The values (N, D) float32 of rows (N,)."""
        return low_row_values(self.weight, self.steps, rows)

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        """One optimizer step on the rows looked up last; nothing where no gradient came."""
        if self._pending is None:
            return
        rows, values = self._pending
        self._pending = None
        if values.grad is None:
            return
        state = {name: getattr(self, name) for name in self.optimizer.state_names}
        chance = None if self.seed is None else (self.seed, self.updates)
        stored = (self.weight, self.steps, state)
        repeated_low_row_update(self.optimizer, *stored, rows, values.grad, learning_rate, chance)
        self.updates += 1

    @property
    def nbytes(self) -> int:
        """Bytes held while training: weights, optimizer state."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())
