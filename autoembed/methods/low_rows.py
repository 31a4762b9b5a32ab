"""Rows stored in 16 or 8 bits while training, too; each step updates its rows in float32 and casts them back.

A row of 8 bits is codes c of -127 .. 127 and a step s of its own: the value is c s, with s = max |w| / 127 of
the updated row, rounded up to 8 significant bits and at least 2^-14, so that packed rows hold s exactly in
half precision (and FBGEMM's bias, 128 s, too).
"""

import torch
from torch import Tensor, nn

from autoembed_kernels.dedupe import Repeats, dedupe
from autoembed_kernels.philox import row_words
from autoembed_kernels.row_update import RowOptimizer, row_update
from autoembed_kernels.stochastic_round import stochastic_codes, stochastic_round

LARGEST_CODE = 127


class LowRows(nn.Module):
    """A flat array of rows (R, D) of float16, bfloat16 or int8 codes, with float32 optimizer state of each.

    steps (R,) float16 of int8 rows, else None. seed: rows are cast stochastically, by words that depend on
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
        self.register_buffer("weight", weight)
        self.register_buffer("steps", steps)
        # the optimizer shapes its state after float32 rows, which are never made: this one takes no bytes
        like = torch.zeros((), device=weight.device).expand(weight.shape)
        for name, state in optimizer.state(like).items():
            self.register_buffer(name, state.contiguous(), persistent=False)
        self._pending: tuple[Tensor, Tensor] | None = None

    def gather(self, rows: Tensor) -> tuple[Tensor, Repeats]:
        """Looked-up rows (N,) -> the float32 values (U, D) of the distinct ones, and who repeats them.

        While gradients are recorded the values are a leaf, and `update` will use its gradient.
        """
        unique, repeats = dedupe(rows, len(self.weight))
        values = self.read(unique)
        if torch.is_grad_enabled():
            values.requires_grad_()
            self._pending = (unique, values)
        return values, repeats

    def read(self, rows: Tensor) -> Tensor:
        """The values (N, D) float32 of rows (N,)."""
        values = self.weight.index_select(0, rows).float()
        return values if self.steps is None else values * self.steps[rows].float().unsqueeze(1)

    @torch.no_grad()
    def update(self, learning_rate: float) -> None:
        """One optimizer step on the rows gathered last; nothing where no gradient came."""
        if self._pending is None:
            return
        rows, values = self._pending
        self._pending = None
        gradient = values.grad
        if gradient is None:
            return
        updated = values.detach()  # a copy of the rows in float32, this step's own
        state = {name: getattr(self, name).index_select(0, rows) for name in self.optimizer.state_names}
        places = torch.arange(len(rows), device=rows.device)
        row_update(self.optimizer, updated, state, places, gradient, learning_rate)
        for name, moved in state.items():
            getattr(self, name).index_copy_(0, rows, moved)
        self._write(rows, updated)
        self.updates += 1

    def _write(self, rows: Tensor, values: Tensor) -> None:
        """Store values (N, D) float32 in rows (N,)."""
        words = None if self.seed is None else row_words(self.seed, self.updates, rows, values.shape[1])
        if self.steps is not None:
            steps = row_steps(values)
            self.steps.index_copy_(0, rows, steps.squeeze(1).half())
            stored = to_codes(values, steps, words)
        elif words is None:
            stored = values.to(self.weight.dtype)
        else:
            stored = stochastic_round(values, words, self.weight.dtype)
        self.weight.index_copy_(0, rows, stored)

    @property
    def nbytes(self) -> int:
        """Bytes held while training: weights, optimizer state."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())


def row_steps(values: Tensor) -> Tensor:
    """values (N, D) -> the step of every row (N, 1) float32, which float16 and bfloat16 hold exactly."""
    # in float64, where 127 s / 127 is s again: a row that does not move keeps its step
    steps = (values.abs().amax(1, keepdim=True).double() / LARGEST_CODE).float().clamp(min=2.0**-14)
    # up, not to the nearest: no code may exceed the largest
    return ((steps.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)


def to_codes(values: Tensor, steps: Tensor, words: Tensor | None) -> Tensor:
    """values (N, D) -> int8 codes by chance, or to the nearest without words."""
    if words is not None:
        return stochastic_codes(values, steps, words, -LARGEST_CODE, LARGEST_CODE)
    return (values / steps).round().clamp(-LARGEST_CODE, LARGEST_CODE).to(torch.int8)
