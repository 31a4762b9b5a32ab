"""The true increase of the loss when groups are stored otherwise, measured without labels.

The loss is the cross-entropy against the model's own predictions, less their entropy: the mean Kullback-
Leibler divergence KL(p || p'), zero where nothing changes. A swap of one group changes only the examples that
look it up, and only they run through the network again: one swap of every group of a field costs as much as
one evaluation, whatever the number of groups.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, pad

from autoembed.data.batch import Batch
from autoembed.joint.stored_values import GroupLike
from autoembed.lookup import look_up
from autoembed_kernels.add_rows import add_rows

_BATCH = 8192  # examples that run through the network together


@dataclass(frozen=True)
class Measured:
    """One swap: mean increase of the loss over all held-out examples, and how many of them it changes."""

    increase: float
    examples: int


@dataclass(frozen=True)
class _Pairs:
    """Of one field: examples (M,) and a group (M,) that each looks up.

    By look-up (L,): place in `rows`, share (L, 1) in the pool, and to which pair it belongs, ascending; ends
    (M + 1): where the look-ups of each pair begin, and where the last one's end. Unless `is_pooled`, the
    field has no bags, and each pair one look-up.
    """

    field: int
    examples: Tensor
    group: Tensor
    places: Tensor
    shares: Tensor
    pair: Tensor
    ends: Tensor
    is_pooled: bool


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
            parts.append(lookup.pool(weight.index_select(0, lookup.rows)))
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
        self._pairs: list[_Pairs] = []
        self._pairs_of: tuple[GroupLike, ...] | None = None

    def swaps(self, groups: Sequence[GroupLike], vectors: Tensor) -> list[Measured]:
        """Every group alone: its rows read those of `vectors` (K, D), the others what they read now."""
        if self._pairs_of != tuple(groups):
            self._pairs_of, self._pairs = tuple(groups), self._paired(groups)
        changes = vectors - self.weight.index_select(0, self.rows)
        increases = torch.zeros(len(groups), dtype=torch.float64, device=self.rows.device)
        counts = [0] * len(groups)
        for pairs in self._pairs:
            for start in range(0, len(pairs.examples), _BATCH):
                part = slice(start, start + _BATCH)
                examples = pairs.examples[part]
                read = self.vectors.index_select(0, examples)
                first, last = pairs.ends[[start, min(start + _BATCH, len(pairs.examples))]].tolist()
                change = changes.index_select(0, pairs.places[first:last])
                if pairs.is_pooled:
                    pooled = torch.zeros_like(read[:, 0])
                    change = change.mul_(pairs.shares[first:last])
                    change = add_rows(pooled, pairs.pair[first:last] - start, change)
                read[:, pairs.field] += change
                logits = self._logits(self.dense.index_select(0, examples), read)
                more = _cross_entropy(logits, self.targets[examples]) - self.entropy[examples]
                increases.index_add_(0, pairs.group[part], more.double())
            for number, count in enumerate(torch.bincount(pairs.group, minlength=len(groups)).tolist()):
                counts[number] += count
        measured = (increases / self.examples).tolist()
        return [Measured(increase, count) for increase, count in zip(measured, counts, strict=True)]

    def table(self, vectors: Tensor) -> float:
        """All groups at once: `rows` read `vectors` (K, D)."""
        total, start = 0.0, 0
        for batch, places in zip(self._kept, self._places, strict=True):
            lookup = look_up(batch, self._firsts)
            logits = self._logits(batch.dense, lookup.pool(vectors.index_select(0, places)))
            part = slice(start, start + len(batch))
            total += float((_cross_entropy(logits, self.targets[part]) - self.entropy[part]).double().sum())
            start += len(batch)
        return total / self.examples

    def _paired(self, groups: Sequence[GroupLike]) -> list["_Pairs"]:
        """Which examples look which groups up, field by field."""
        found = []
        for field in sorted({group.field for group in groups}):
            numbers = torch.tensor([n for n, group in enumerate(groups) if group.field == field])
            numbers = numbers.to(self.rows.device)
            owners, places, shares = self._field(field)
            ends = torch.tensor([[groups[n].start, groups[n].stop] for n in numbers.tolist()])
            ends = (self.first_rows[field] + ends).to(self.rows.device)
            # look-ups stand in the order of their rows
            starts, stops = torch.searchsorted(places, torch.searchsorted(self.rows, ends)).unbind(1)
            sizes = stops - starts
            of_group = torch.arange(len(numbers), device=sizes.device).repeat_interleave(sizes)
            chosen = torch.arange(len(of_group), device=sizes.device)
            chosen = chosen + (starts - sizes.cumsum(0) + sizes)[of_group]
            # an example that has rows of a group several times is swapped once
            keys, pair = torch.unique(of_group * self.examples + owners[chosen], return_inverse=True)
            examples = keys % self.examples
            group = numbers[keys // self.examples]
            pair, order = pair.sort(stable=True)
            chosen = chosen[order]
            counts = torch.bincount(pair, minlength=len(keys)).cumsum(0)
            is_pooled = any(field in batch.bags for batch in self._kept)
            found.append(
                _Pairs(
                    *(field, examples, group, places[chosen], shares[chosen], pair),
                    *(pad(counts, (1, 0)), is_pooled),
                )
            )
        return found

    def _field(self, field: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of a field's look-ups, by row: their examples, places in `rows`, shares (M, 1) in the pool."""
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
        return owners[order], places, weights[order]

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
