"""A batch of examples as the trainer, the tables and the runtime see it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bag:
    """The ids of one bag field: example i holds values[offsets[i]:offsets[i + 1]], maybe none.

    values (N,) int64 rows of the field; offsets (B + 1,) int64, offsets[0] = 0; pooling `sum` or `mean`.
    An empty bag pools to the zero vector.
    """

    values: Tensor
    offsets: Tensor
    pooling: str = "sum"


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
        bags = {
            field: Bag(bag.values.to(device), bag.offsets.to(device), bag.pooling)
            for field, bag in self.bags.items()
        }
        return Batch(self.labels.to(device), self.dense.to(device), self.ids.to(device), bags)
