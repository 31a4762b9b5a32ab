"""A sketch of the most important rows of a stream, which also says where each of them lies.

HotSketch of CAFE (SIGMOD 2024, doi 10.1145/3639306), a bucket of 4 slots for every place, 12 bytes a slot:
the row, its importance, and the place of its own vector or -1. A row belongs to the bucket that a hash of its
number chooses. A row that comes adds to its slot; where it has none, it takes an empty one or the least
important of those without a place, whose importance it inherits (space-saving).

Fills gaps of the paper for batches: a batch's distinct rows are added at once; of a bucket's new rows the
k-th most important takes the k-th least important slot, so that no two of one batch displace each other, and
those beyond the fourth are dropped. Places move in rounds: all importance decays, the threshold is put where
as many rows lie above it as there are places, rows below (1 - margin) of it lose theirs, rows above
(1 + margin) of it gain one, the most important first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoembed_kernels.checks import as_indices, check_shape
from autoembed_kernels.row_hash import row_hash

SLOTS = 4  # of a bucket
SLOT_BYTES = 12
LEAST_DECAY = 1e-6  # a round decides by what is left: of nothing all rows are alike
NONE = -1
_SALT = 2**20  # another hash than that of any field's rows


@dataclass(frozen=True)
class Moved:
    """A round: `lost` (L,) places that became free; rows (M,) that gained one, and which: `places` (M,)."""

    lost: Tensor
    rows: Tensor
    places: Tensor


class HotSketch(nn.Module):
    """rows, importance, place (places * SLOTS,): int32, float32, int32."""

    rows: Tensor
    importance: Tensor
    place: Tensor

    def __init__(self, places: int) -> None:
        super().__init__()
        if not 0 < places < 2**31 // SLOTS:
            raise ValueError(f"a sketch needs 1 to {2**31 // SLOTS - 1:,} places, got {places:,}")
        self.places = places
        slots = places * SLOTS
        self.register_buffer("rows", torch.full((slots,), NONE, dtype=torch.int32))
        self.register_buffer("importance", torch.zeros(slots))
        self.register_buffer("place", torch.full((slots,), NONE, dtype=torch.int32))

    def bucket_of(self, rows: Tensor) -> Tensor:
        """rows (N,) int64 -> buckets (N,)."""
        return row_hash(rows, _SALT, self.places)

    def find(self, rows: Tensor) -> Tensor:
        """rows (N,) int64 below 2^31 -> their slots (N,), NONE where they are not tracked."""
        buckets = self.bucket_of(rows)
        hit = self.rows.view(-1, SLOTS)[buckets] == rows.unsqueeze(1).int()  # (N, SLOTS)
        return torch.where(hit.any(1), buckets * SLOTS + hit.int().argmax(1), NONE)

    def place_of(self, rows: Tensor) -> Tensor:
        """rows (N,) -> the places of their own vectors (N,) int64, NONE for those without."""
        slots = self.find(rows)
        return torch.where(slots >= 0, self.place[slots.clamp(min=0)].long(), NONE)

    def add(self, rows: Tensor, amounts: Tensor) -> None:
        """A batch's distinct rows (U,) int64 came with these amounts (U,) >= 0 of importance.

        Raises ValueError where shapes do not fit.
        """
        rows = as_indices("rows", rows)
        check_shape("amounts", amounts, rows.shape, "one for each of rows")
        slots = self.find(rows)
        tracked = slots >= 0
        self.importance[slots[tracked]] += amounts[tracked]
        rows, amounts = rows[~tracked], amounts[~tracked]
        if not len(rows):
            return
        buckets = self.bucket_of(rows)
        order = amounts.argsort(descending=True, stable=True)
        order = order[buckets[order].argsort(stable=True)]
        chosen = buckets[order]
        begins = torch.ones_like(chosen, dtype=torch.bool)
        begins[1:] = chosen[1:] != chosen[:-1]
        number = begins.long().cumsum(0) - 1
        rank = torch.arange(len(order), device=rows.device) - begins.nonzero().squeeze(1)[number]
        of_bucket = chosen[begins].unsqueeze(1) * SLOTS + torch.arange(SLOTS, device=rows.device)
        # empty ones first, those with a place never
        worth = torch.where(self.rows[of_bucket] == NONE, -1.0, self.importance[of_bucket])
        worth = worth.masked_fill(self.place[of_bucket] >= 0, torch.inf)
        worth, ways = worth.sort(dim=1, stable=True)
        fits = rank < SLOTS
        order, number, rank = order[fits], number[fits], rank[fits]
        free = worth[number, rank] < torch.inf
        order, number, rank = order[free], number[free], rank[free]
        slots = of_bucket[number, ways[number, rank]]
        self.rows[slots] = rows[order].int()
        self.importance[slots] += amounts[order]

    def rebalance(self, decay: float, margin: float) -> Moved:
        """A round of decay, losses and gains of places. `decay` is LEAST_DECAY at least."""
        self.importance *= max(decay, LEAST_DECAY)
        threshold = self._threshold()
        hot = self.place >= 0
        leave = (hot & (self.importance < (1 - margin) * threshold)).nonzero().squeeze(1)
        lost = self.place[leave].long()
        self.place[leave] = NONE
        used = torch.zeros(self.places, dtype=torch.bool, device=self.place.device)
        used[self.place[self.place >= 0].long()] = True
        free = (~used).nonzero().squeeze(1)
        wanted = ~hot & (self.rows != NONE) & (self.importance > (1 + margin) * threshold)
        come = (wanted & (self.importance > 0)).nonzero().squeeze(1)
        come = come[self.importance[come].argsort(descending=True, stable=True)][: len(free)]
        places = free[: len(come)]
        self.place[come] = places.int()
        return Moved(lost, self.rows[come].long(), places)

    def _threshold(self) -> float:
        """Half-way between the last importance that a place is left for and the first that gets none."""
        largest = self.importance.topk(self.places + 1).values
        return float(largest[-2:].mean())

    @property
    def nbytes(self) -> int:
        """SLOT_BYTES * SLOTS * places."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())


class ReferenceSketch:
    """`HotSketch.add`, row by row, in plain Python."""

    def __init__(self, places: int) -> None:
        self._like = HotSketch(places)
        self.rows = [NONE] * (places * SLOTS)
        self.importance = [0.0] * len(self.rows)
        self.place = [NONE] * len(self.rows)

    def add(self, rows: Sequence[int], amounts: Sequence[float]) -> None:
        new: dict[int, list[tuple[float, int]]] = {}
        for row, amount in zip(rows, amounts, strict=True):
            bucket = int(self._like.bucket_of(torch.tensor([row])))
            slots = range(bucket * SLOTS, (bucket + 1) * SLOTS)
            at = next((slot for slot in slots if self.rows[slot] == row), None)
            if at is None:
                new.setdefault(bucket, []).append((amount, row))
            else:
                self.importance[at] += amount
        for bucket, arrived in new.items():
            slots = range(bucket * SLOTS, (bucket + 1) * SLOTS)
            ranked = sorted(
                (slot for slot in slots if self.place[slot] == NONE),
                key=lambda slot: -1.0 if self.rows[slot] == NONE else self.importance[slot],
            )
            arrived.sort(key=lambda pair: -pair[0])
            for slot, (amount, row) in zip(ranked, arrived, strict=False):
                self.rows[slot] = row
                self.importance[slot] += amount
