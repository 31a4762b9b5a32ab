"""The trainable embedding collection: one flat array for all fields, sparse optimizer steps.

Rows of all fields lie behind one another (`Stats.first_rows`). A step touches only the rows that the
batch looks up: the forward pass makes what it reads a leaf, and `RowStore.update` moves these rows and their
optimizer state alone. `RowStore.gather` reads each distinct row once, for methods that change its vector or
need its gradient; autograd sums the gradient of repeats. `RowStore.look_up` reads the vectors as they are,
and the update finds and sums the repeats itself, in one pass.
"""

import torch
from torch import Tensor, nn

from autoembed.lookup import Lookup as Lookup
from autoembed.lookup import look_up as look_up
from autoembed_kernels.dedupe import Repeats, dedupe, take_rows
from autoembed_kernels.large_pages import in_large_pages
from autoembed_kernels.repeated_update import repeated_row_update
from autoembed_kernels.row_update import RowOptimizer, row_update


class RowStore(nn.Module):
    """A flat array of rows (R, D) with the optimizer state of each row.

    weight and state are buffers, moved with the module, and no dense optimizer ever sees them. Only the
    weight is part of `state_dict`: it is what a good epoch is remembered by.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, optimizer: RowOptimizer) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.register_buffer("weight", weight)
        for name, state in optimizer.state(weight).items():
            self.register_buffer(name, state, persistent=False)
        self._pending: tuple[Tensor, Tensor, bool] | None = None
        self._in_large_pages = False

    def look_up(self, rows: Tensor) -> Tensor:
        """Rows (N,), which may repeat -> their weights (N, D), a leaf while gradients are recorded."""
        if not torch.is_grad_enabled():
            return take_rows(self.weight, rows)
        self._begin()
        values = take_rows(self.weight, rows).requires_grad_()
        self._pending = (rows, values, True)
        return values

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor, Repeats]:
        """Looked-up rows (N,) -> distinct rows (U,), their weights (U, D), and who repeats them.

        `autoembed_kernels.dedupe.repeat(weights, repeats)` are the vectors of the look-ups. While
        gradients are recorded the weights are a leaf, and `update` will use its gradient.
        """
        unique, repeats = dedupe(rows, len(self.weight))
        if not torch.is_grad_enabled():
            return unique, take_rows(self.weight, unique), repeats
        self._begin()
        values = take_rows(self.weight, unique).requires_grad_()
        self._pending = (unique, values, False)
        return unique, values, repeats

    def _begin(self) -> None:
        """Before the first step. Moving a table costs a few steps: not for one that is only packed."""
        if not self._in_large_pages:
            self._in_large_pages = True
            for held in self.buffers():
                in_large_pages(held)

    def update(self, learning_rate: float) -> None:
        """One optimizer step on the rows read last; nothing where no gradient came."""
        if self._pending is None:
            return
        rows, values, repeated = self._pending
        self._pending = None
        if values.grad is None:
            return
        state = {name: getattr(self, name) for name in self.optimizer.state_names}
        step = repeated_row_update if repeated else row_update
        step(self.optimizer, self.weight, state, rows, values.grad, learning_rate)

    @property
    def nbytes(self) -> int:
        """Bytes held while training: weights, optimizer state."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())
