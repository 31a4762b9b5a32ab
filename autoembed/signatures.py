"""Min-hash signatures of ids, from the sets of what they are met with in the train split.

Desai et al. (LMA), arXiv:2103.06124: the set of an id is the set of examples that contain it. No two ids of
one single-valued field are ever in one example, so that these sets bring together ids of different fields
alone; `over="partners"` is ours, and takes the ids of other fields that an id is met with: two users of the
same items are similar then. Out-of-vocabulary ids are nobody's partner.

Of more than `examples` examples, about that many are read, drawn by a hash of their place in the log.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from autoembed.companions import Companion, Split
from autoembed.data.batch import Batch
from autoembed.lookup import look_up
from autoembed.stats import Counts, Stats
from autoembed_kernels.min_hash import EMPTY, KEYS, element_hash, keys_of, lower_minima, with_key
from autoembed_kernels.row_hash import row_hash

MINIMA_BYTES = 256 << 20  # held at once; more ids take more passes over the split
_BATCH = 8192
_DRAW = 4 * KEYS  # a salt that no key has


@dataclass(frozen=True)
class Signatures(Companion):
    """Of every row from 1 on with at least `least` look-ups in train; 0 of the others."""

    over: str
    examples: int
    least: int

    name: ClassVar[str] = "signatures"
    version: ClassVar[int] = 1

    def compute(self, data: Split, stats: Stats) -> Tensor:
        rows = signed_rows(stats, self.least)  # (n,)
        place = torch.full((stats.rows,), len(rows))  # the others write to one entry behind
        place[rows] = torch.arange(len(rows))
        found = torch.zeros(len(rows), dtype=torch.int64)
        step = max(1, min(KEYS, MINIMA_BYTES // (8 * (len(rows) + 1))))
        for first in range(0, KEYS if len(rows) else 0, step):
            keys = range(first, min(first + step, KEYS))
            minima = torch.full((len(keys), len(rows) + 1), EMPTY)
            self._lower(minima, keys, data, stats, place)
            for key, least in zip(keys, minima, strict=True):
                found = with_key(found, key, keys_of(least[:-1], rows, key))
        signatures = torch.zeros(stats.rows, dtype=torch.int64)
        signatures[rows] = found
        return signatures

    def _lower(self, minima: Tensor, keys: range, data: Split, stats: Stats, place: Tensor) -> None:
        """One pass over the train split."""
        first_rows = torch.tensor(stats.first_rows)
        total, start = data.rows("train"), 0
        for batch in data.batches("train", _BATCH):
            number = torch.arange(start, start + len(batch))
            start += len(batch)
            lookup = look_up(batch, first_rows)
            read = place[lookup.rows]
            if total > self.examples:
                drawn = row_hash(number, _DRAW, total) < self.examples
                taken = _per_lookup(batch, drawn.unsqueeze(1).expand(batch.ids.shape))
                read = torch.where(taken, read, minima.shape[1] - 1)
            for key, least in zip(keys, minima, strict=True):
                if self.over == "examples":
                    hashes = element_hash(number, key).unsqueeze(1).expand(batch.ids.shape)
                else:
                    hashes = partner_hashes(batch, first_rows, key)
                lower_minima(least, read, _per_lookup(batch, hashes))


def signed_count(counts: Counts, least: int) -> int:
    """How many rows from 1 on have at least `least` look-ups, by counts (R,) of a field."""
    return int((counts[1:] >= least).sum())


def signed_rows(stats: Stats, least: int) -> Tensor:
    """Global rows (n,) int64, ascending, of those that `Signatures` gives one."""
    parts = [
        first + 1 + torch.from_numpy(np.flatnonzero(field.counts[1:] >= least))
        for first, field in zip(stats.first_rows, stats.fields, strict=True)
    ]
    return torch.cat(parts)


def partner_hashes(batch: Batch, first_rows: Tensor, key: int) -> Tensor:
    """(B, F): for every field the smallest hash of the example's ids in the other fields, EMPTY of none."""
    hashes = element_hash(batch.ids + first_rows, key)
    hashes = torch.where(batch.ids > 0, hashes, EMPTY)
    owners = torch.arange(len(batch))
    for field, bag in batch.bags.items():
        own = torch.where(bag.values > 0, element_hash(bag.values + first_rows[field], key), EMPTY)
        column = torch.full((len(batch),), EMPTY)
        lower_minima(column, torch.repeat_interleave(owners, bag.offsets.diff()), own)
        hashes[:, field] = column
    none = torch.full((len(batch), 1), EMPTY)
    before = torch.cat([none, hashes[:, :-1]], dim=1).cummin(dim=1).values
    behind = torch.cat([none, hashes[:, 1:].flip(1)], dim=1).cummin(dim=1).values.flip(1)
    return torch.minimum(before, behind)


def _per_lookup(batch: Batch, values: Tensor) -> Tensor:
    """values (B, F) of examples and fields -> (N,) of the look-ups of `look_up`."""
    single = [field for field in range(values.shape[1]) if field not in batch.bags]
    parts = [values[:, single].flatten()]
    for field, bag in sorted(batch.bags.items()):
        parts.append(torch.repeat_interleave(values[:, field], bag.offsets.diff()))
    return torch.cat(parts)
