"""Rows stored in 16 bits while training, too; each step updates its rows in float32 and casts them back."""

import torch
from torch import Tensor, nn

from autoembed_kernels.dedupe import Repeats, dedupe
from autoembed_kernels.philox import row_words
from autoembed_kernels.row_update import RowOptimizer, row_update
from autoembed_kernels.stochastic_round import stochastic_round


class HalfRows(nn.Module):
    """A flat array of rows (R, D) of float16 or bfloat16, with float32 optimizer state of each row.

    seed: rows are cast stochastically, by words that depend on the seed, the number of the update, the
    row and the column alone; None: to the nearest. As in `autoembed.tables.RowStore`, weight and state are
    buffers, and only the weight is part of `state_dict`.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, optimizer: RowOptimizer, seed: int | None) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.seed = seed
        self.updates = 0
        self.register_buffer("weight", weight)
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
        values = self.weight.index_select(0, unique).float()
        if torch.is_grad_enabled():
            values.requires_grad_()
            self._pending = (unique, values)
        return values, repeats

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
        self.weight.index_copy_(0, rows, self._cast(rows, updated))
        self.updates += 1

    def _cast(self, rows: Tensor, values: Tensor) -> Tensor:
        if self.seed is None:
            return values.to(self.weight.dtype)
        words = row_words(self.seed, self.updates, rows, values.shape[1])
        return stochastic_round(values, words, self.weight.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes held while training: weights, optimizer state."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())
