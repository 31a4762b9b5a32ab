"""A batch of examples as the trainer, the tables and the runtime see it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bag:
    """The ids of one bag field: example i holds values[offsets[i]:offsets[i + 1]], maybe none.

    values (N,) int64 rows of the field; offsets (B + 1,) int64, offsets[0] = 0; pooling `sum` or `mean`.
    weights (N,) float32 or None: each id's vector is multiplied by its weight, and a mean divides by the
    sum of the weights. An empty bag pools to the zero vector, and so does a mean whose weights sum to 0.
    """

    values: Tensor
    offsets: Tensor
    pooling: str = "sum"
    weights: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Ids of every example, (B,) int64."""
        return self.offsets.diff()

    def shares(self) -> Tensor:
        """What every id's vector is multiplied by before a bag is summed, (N,) float32."""
        lengths = self.lengths
        if self.weights is None:
            ones = torch.ones(len(self.values), device=self.values.device)
            return ones / lengths.repeat_interleave(lengths) if self.pooling == "mean" else ones
        if self.pooling != "mean":
            return self.weights
        owners = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        # in float64: float32 sums would leave a residue where large weights cancel
        weights = self.weights.double()
        totals = weights.new_zeros(len(lengths)).index_add(0, owners, weights)[owners]
        return torch.where(totals == 0, 0.0, weights / totals).float()

    def to(self, device: torch.device) -> "Bag":
        weights = None if self.weights is None else self.weights.to(device)
        return Bag(self.values.to(device), self.offsets.to(device), self.pooling, weights)


@dataclass(frozen=True)
class Batch:
    """labels (B,) float32; dense (B, number of dense columns) float32; ids (B, F) int64.

    `ids` are rows of each field, in field order; the column of a bag field holds zeros and
    `bags[field index]` holds its ids.
    """

    labels: Tensor
    dense: Tensor
    ids: Tensor
    bags: dict[int, Bag]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Batch":
        bags = {field: bag.to(device) for field, bag in self.bags.items()}
        return Batch(self.labels.to(device), self.dense.to(device), self.ids.to(device), bags)
