"""The true increase of the loss when groups are stored otherwise, measured without labels.

The loss is the cross-entropy against the model's own predictions, less their entropy: the mean Kullback-
Leibler divergence KL(p || p'), zero where nothing changes. A swap of one group changes only the examples that
look it up, and only they run through the network again: one swap of every group of a field costs as much as
one evaluation, whatever the number of groups.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.data.batch import Batch
from autoembed.joint.stored_values import GroupLike
from autoembed.lookup import look_up

_BATCH = 8192  # examples that run through the network together


@dataclass(frozen=True)
class Measured:
    """One swap: mean increase of the loss over all held-out examples, and how many of them it changes."""

    increase: float
    examples: int


class HeldOut:
    """Held-out examples under a model with frozen weights, ready for swaps.

    weight (R, D) are the vectors that look-ups read now. `batches` are kept, up to `max_examples` of them:
    memory is that of their vectors, (examples, F, D) float32. rows (K,): the global rows that they look up,
    each once, ascending; changes are given as what these rows would read.
    """

    def __init__(
        self,
        network: nn.Module,
        weight: Tensor,
        first_rows: tuple[int, ...],
        batches: Iterable[Batch],
        *,
        max_examples: int = 8192,
    ) -> None:
        self.network, self.weight, self.first_rows = network, weight, first_rows
        device = weight.device
        self._firsts = torch.tensor(first_rows, dtype=torch.int64, device=device)
        self._kept: list[Batch] = []
        parts = []
        looked_up = []
        self.examples = 0
        for batch in batches:
            self._kept.append(batch := batch.to(device))
            lookup = look_up(batch, self._firsts)
            parts.append(lookup.pool(weight[lookup.rows]))
            looked_up.append(lookup.rows)
            self.examples += len(batch)
            if self.examples >= max_examples:
                break
        if not parts:
            raise ValueError("no held-out example to measure swaps on; give the data a valid split")
        self.rows, places = torch.unique(torch.cat(looked_up), return_inverse=True)
        self._places = torch.split(places, [len(rows) for rows in looked_up])  # by batch, into `rows`
        self.dense = torch.cat([batch.dense for batch in self._kept])
        self.vectors = torch.cat(parts)  # (N, F, D)
        logits = self._logits(self.dense, self.vectors)
        self.targets = logits.sigmoid()
        self.entropy = _cross_entropy(logits, self.targets)  # (N,)
        self._lookups: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def swaps(self, groups: Sequence[GroupLike], vectors: Tensor) -> list[Measured]:
        """Every group alone: its rows read those of `vectors` (K, D), the others what they read now."""
        found: list[Measured] = []
        for together in self._gathered(groups, vectors - self.weight[self.rows]):
            dense = torch.cat([self.dense[owners] for owners, _ in together])
            targets = torch.cat([self.targets[owners] for owners, _ in together])
            entropy = torch.cat([self.entropy[owners] for owners, _ in together])
            logits = self._logits(dense, torch.cat([vectors for _, vectors in together]))
            increases = (_cross_entropy(logits, targets) - entropy).double()
            for part in torch.split(increases, [len(owners) for owners, _ in together]):
                found.append(Measured(float(part.sum()) / self.examples, len(part)))
        return found

    def table(self, vectors: Tensor) -> float:
        """All groups at once: `rows` read `vectors` (K, D)."""
        total, start = 0.0, 0
        for batch, places in zip(self._kept, self._places, strict=True):
            lookup = look_up(batch, self._firsts)
            logits = self._logits(batch.dense, lookup.pool(vectors[places]))
            part = slice(start, start + len(batch))
            total += float((_cross_entropy(logits, self.targets[part]) - self.entropy[part]).double().sum())
            start += len(batch)
        return total / self.examples

    def _gathered(
        self, groups: Sequence[GroupLike], changes: Tensor
    ) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Examples and their new vectors by group, as many groups together as fill a batch."""
        together: list[tuple[Tensor, Tensor]] = []
        size = 0
        for group in groups:
            changed = self._changed(group, changes)
            if size and size + len(changed[0]) > _BATCH:
                yield together
                together, size = [], 0
            together.append(changed)
            size += len(changed[0])
        if together:
            yield together

    def _changed(self, group: GroupLike, changes: Tensor) -> tuple[Tensor, Tensor]:
        """The examples (n,) that look the group up, and their vectors (n, F, D) with the change."""
        owners, places_of, shares = self._field(group.field)
        first = self.first_rows[group.field]
        ends = torch.tensor([first + group.start, first + group.stop], device=self.rows.device)
        chosen = slice(*torch.searchsorted(places_of, torch.searchsorted(self.rows, ends)).tolist())
        change = changes[places_of[chosen]] * shares[chosen]
        examples, places = torch.unique(owners[chosen], return_inverse=True)
        vectors = self.vectors[examples]
        vectors[:, group.field] += torch.zeros_like(vectors[:, 0]).index_add(0, places, change)
        return examples, vectors

    def _field(self, field: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of a field's look-ups, by row: their examples, places in `rows`, shares (M, 1) in the pool."""
        if field not in self._lookups:
            parts = []
            start = 0
            for batch in self._kept:
                numbers = torch.arange(start, start + len(batch), device=self.weight.device)
                start += len(batch)
                bag = batch.bags.get(field)
                if bag is None:
                    parts.append((numbers, batch.ids[:, field], torch.ones(len(batch), 1).to(self.weight)))
                    continue
                shares = bag.shares().to(self.weight).unsqueeze(1)
                parts.append((numbers.repeat_interleave(bag.lengths), bag.values, shares))
            owners, ids, weights = (torch.cat(columns) for columns in zip(*parts, strict=True))
            ids, order = ids.sort()
            places = torch.searchsorted(self.rows, self.first_rows[field] + ids)
            self._lookups[field] = owners[order], places, weights[order]
        return self._lookups[field]

    @torch.no_grad()
    def _logits(self, dense: Tensor, vectors: Tensor) -> Tensor:
        training = self.network.training
        self.network.eval()
        try:
            parts = [
                self.network(dense[start : start + _BATCH], vectors[start : start + _BATCH])
                for start in range(0, len(vectors), _BATCH)
            ]
        finally:
            self.network.train(training)
        return torch.cat(parts) if parts else vectors.new_zeros(0)


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")
