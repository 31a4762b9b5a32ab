"""From a batch to the rows that it reads, and from their vectors back to one vector per field.

Shared by the trainable tables and by the packed ones, so that both pool alike.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed.data.batch import Batch


@dataclass(frozen=True)
class Lookup:
    """The look-ups of one batch, flattened: rows (N,) global rows, and how to pool their vectors."""

    rows: Tensor
    batch: Batch
    single: tuple[int, ...]

    def pool(self, values: Tensor) -> Tensor:
        """Vectors of the looked-up rows (N, D) -> (B, F, D); bags are summed or averaged by weight."""
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
            lengths = bag.lengths
            owners = torch.repeat_interleave(torch.arange(size, device=values.device), lengths)
            stop = start + len(bag.values)
            held = values[start:stop]
            if bag.weights is not None:
                held = held * bag.shares().to(values.dtype).unsqueeze(1)
            pooled = values.new_zeros(size, dim).index_add(0, owners, held)
            if bag.pooling == "mean" and bag.weights is None:
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
