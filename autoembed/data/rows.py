"""Rows of a split as tensors: loaded whole, or a stretch of a memory map, and cut into batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed.data.batch import Bag, Batch

BLOCK_ROWS = 4096
POOL_ROWS = 1 << 19


@dataclass(frozen=True)
class BagRows:
    """values (N,) int32; offsets (B + 1,) int64 from 0; pooling and weights as in Bag."""

    values: Tensor
    offsets: Tensor
    pooling: str
    weights: Tensor | None = None


@dataclass(frozen=True)
class Rows:
    """labels (B,) float32, dense (B, C) float32, ids (B, F) int32 with zeros for bags."""

    labels: Tensor
    dense: Tensor
    ids: Tensor
    bags: dict[int, BagRows]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, start: int, stop: int, order: Tensor | None) -> Batch:
        """Rows start..stop, in the given order of rows where there is one."""
        if order is None:
            ids, labels, dense = self.ids[start:stop], self.labels[start:stop], self.dense[start:stop]
            bags = {field: _bag_slice(bag, start, stop) for field, bag in self.bags.items()}
            return Batch(labels, dense, ids.long(), bags)
        chosen = order[start:stop]
        bags = {field: _bag_pick(bag, chosen) for field, bag in self.bags.items()}
        return Batch(
            self.labels.index_select(0, chosen),
            self.dense.index_select(0, chosen),
            self.ids.index_select(0, chosen).long(),
            bags,
        )


def whole_batches(rows: Rows, batch_size: int, shuffle_seed: int | None) -> Iterator[Batch]:
    """Batches of loaded rows, in row order or in a random order drawn from the seed."""
    order = None
    if shuffle_seed is not None:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(shuffle_seed))
    for start in range(0, len(rows), batch_size):
        yield rows.batch(start, min(start + batch_size, len(rows)), order)


def pooled_batches(
    read: Callable[[list[tuple[int, int]]], Rows],
    total: int,
    batch_size: int,
    shuffle_seed: int | None,
    *,
    block_rows: int = BLOCK_ROWS,
    pool_rows: int = POOL_ROWS,
) -> Iterator[Batch]:
    """Batches of rows that do not fit in memory: `read` gives stretches [start, stop) one after another.

    Shuffled: blocks of consecutive rows in random order, about `pool_rows` of them shuffled together. A
    batch never spans pools; a pool is a multiple of the batch size except for the last.
    """
    starts = torch.arange(0, total, block_rows)
    generator = torch.Generator().manual_seed(shuffle_seed or 0)
    if shuffle_seed is not None:
        starts = starts[torch.randperm(len(starts), generator=generator)]
    blocks = [(int(start), min(int(start) + block_rows, total)) for start in starts]
    pool_rows = max(pool_rows // batch_size, 1) * batch_size
    for stretches in _pools(blocks, pool_rows):
        rows = read(stretches)
        order = torch.randperm(len(rows), generator=generator) if shuffle_seed is not None else None
        for start in range(0, len(rows), batch_size):
            yield rows.batch(start, min(start + batch_size, len(rows)), order)


def _pools(blocks: list[tuple[int, int]], pool_rows: int) -> Iterator[list[tuple[int, int]]]:
    """Cut the row of blocks into pools of exactly `pool_rows` rows; the last may be shorter."""
    pool: list[tuple[int, int]] = []
    room = pool_rows
    for start, stop in blocks:
        while start < stop:
            cut = min(stop, start + room)
            pool.append((start, cut))
            room -= cut - start
            start = cut
            if room == 0:
                yield pool
                pool, room = [], pool_rows
    if pool:
        yield pool


def _bag_slice(bag: BagRows, start: int, stop: int) -> Bag:
    offsets = bag.offsets[start : stop + 1]
    held = slice(int(offsets[0]), int(offsets[-1]))
    weights = None if bag.weights is None else bag.weights[held]
    return Bag(bag.values[held].long(), offsets - offsets[0], bag.pooling, weights)


def _bag_pick(bag: BagRows, chosen: Tensor) -> Bag:
    firsts = bag.offsets[chosen]
    lengths = bag.offsets[chosen + 1] - firsts
    offsets = torch.zeros(len(chosen) + 1, dtype=torch.int64)
    torch.cumsum(lengths, 0, out=offsets[1:])
    places = torch.arange(int(offsets[-1])) + torch.repeat_interleave(firsts - offsets[:-1], lengths)
    weights = None if bag.weights is None else bag.weights[places]
    return Bag(bag.values[places].long(), offsets, bag.pooling, weights)
