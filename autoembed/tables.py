"""The trainable embedding collection: one flat array for all fields, sparse optimizer steps, pooling.

Rows of all fields lie behind one another (`Stats.first_rows`). A step touches only the rows that the
batch looks up: the forward pass gathers each distinct row once as a leaf, autograd sums the gradient of
its duplicates, and `RowStore.update` moves these rows and their optimizer state alone.
"""

from dataclasses import dataclass

import torch
from autoembed_kernels.dedupe import dedupe
from autoembed_kernels.row_update import RowOptimizer, row_update
from torch import Tensor, nn

from autoembed.data.batch import Batch


@dataclass(frozen=True)
class Lookup:
    """The look-ups of one batch, flattened: rows (N,) global rows, and how to pool their vectors."""

    rows: Tensor
    batch: Batch
    single: tuple[int, ...]

    def pool(self, values: Tensor) -> Tensor:
        """Vectors of the looked-up rows (N, D) -> (B, F, D); bags are summed or averaged."""
        size, fields = self.batch.ids.shape
        dim = values.shape[1]
        singles = len(self.single)
        single_values = values[: size * singles].view(size, singles, dim)
        if singles == fields:
            return single_values
        columns: list[Tensor] = [values] * fields
        for position, field in enumerate(self.single):
            columns[field] = single_values[:, position]
        start = size * singles
        for field, bag in sorted(self.batch.bags.items()):
            lengths = bag.offsets.diff()
            owners = torch.repeat_interleave(torch.arange(size, device=values.device), lengths)
            stop = start + len(bag.values)
            pooled = values.new_zeros(size, dim).index_add(0, owners, values[start:stop])
            if bag.pooling == "mean":
                pooled = pooled / lengths.clamp(min=1).unsqueeze(1)
            columns[field] = pooled
            start = stop
        return torch.stack(columns, dim=1)


def look_up(batch: Batch, first_rows: Tensor) -> Lookup:
    """The global rows that a batch reads. first_rows (F,): `Stats.first_rows` on the batch's device."""
    fields = batch.ids.shape[1]
    single = tuple(field for field in range(fields) if field not in batch.bags)
    ids = batch.ids + first_rows
    if len(single) == fields:
        return Lookup(ids.flatten(), batch, single)
    bags = [bag.values + first_rows[field] for field, bag in sorted(batch.bags.items())]
    return Lookup(torch.cat([ids[:, list(single)].flatten(), *bags]), batch, single)


class RowStore(nn.Module):
    """A flat array of rows (R, D) with the optimizer state of each row.

    weight and state are buffers: they are saved and moved with the module, and no dense optimizer
    ever sees them.
    """

    weight: Tensor
    scratch: Tensor

    def __init__(self, weight: Tensor, optimizer: RowOptimizer) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.register_buffer("weight", weight)
        self.register_buffer("scratch", torch.zeros(len(weight), dtype=torch.int32), persistent=False)
        for name, state in optimizer.state(weight).items():
            self.register_buffer(name, state)
        self.step = 0
        self._pending: tuple[Tensor, Tensor] | None = None

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Looked-up rows (N,) -> distinct rows (U,), their weights (U, D), and inverse (N,).

        While gradients are recorded the weights are a leaf, and `update` will use its gradient.
        """
        unique, inverse = dedupe(rows, self.scratch)
        values = self.weight[unique]
        if torch.is_grad_enabled():
            values.requires_grad_()
            self._pending = (unique, values)
        return unique, values, inverse

    def update(self, learning_rate: float) -> None:
        """One optimizer step on the rows gathered last; nothing where no gradient came."""
        if self._pending is None:
            return
        rows, values = self._pending
        self._pending = None
        if values.grad is None:
            return
        self.step += 1
        state = {name: getattr(self, name) for name in self.optimizer.state_names}
        row_update(self.optimizer, self.weight, state, rows, values.grad, self.step, learning_rate)

    def reset(self, weight: Tensor) -> None:
        """Put other weights in place and forget the optimizer's state, as a new training would."""
        self.weight.copy_(weight)
        for name in self.optimizer.state_names:
            getattr(self, name).zero_()
        self.step = 0
        self._pending = None

    @property
    def nbytes(self) -> int:
        """Bytes held while training: weights, optimizer state, scratch."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())
