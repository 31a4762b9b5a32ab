"""A set-associative cache of float32 rows in front of a larger store: where rows lie, and which has to go.

As in FBGEMM's managed caching and arXiv:2010.11305: a row may lie in the `ways` slots of one set, which a
hash of its number chooses. `place` is called once a step with the step's distinct rows: those in the cache
stay where they are, the others take slots of their set that this step does not use. Under `lru` the slots
that were used longest ago go first; under `lfu` those of rows with the fewest uses, and a row is admitted
only where it has been used as often as the one that would go. Rows that find no slot are told by -1.

In C++ and torch all decisions are the same, to the order of what is evicted. On a GPU rows are found by
Triton and replaced by torch: a sort by set of the rows that miss, whose number the caller needs on the CPU.
"""

from collections.abc import Sequence
from ctypes import CDLL
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoembed_kernels.cache_probe import EMPTY, cache_probe
from autoembed_kernels.checks import as_indices, check_shape
from autoembed_kernels.native.loader import address, checked, native_for
from autoembed_kernels.row_hash import row_hash


@dataclass(frozen=True)
class Placed:
    """slot (U,) of every row, or -1; was_there (U,): it held the row before.

    Of slots that change hands, `evicted` are the rows that lay there and `freed` the slots (E,).
    """

    slot: Tensor
    was_there: Tensor
    evicted: Tensor
    freed: Tensor


class RowCache(nn.Module):
    """Slots of `sets` sets of `ways`. tags (sets * ways,) int32: the row of every slot, or -1.

    `stamps`: lru: the step (int32) of a slot's last use; lfu: uses (int32) of every row of the store.
    """

    tags: Tensor
    stamps: Tensor

    def __init__(self, rows: int, slots: int, ways: int, policy: str) -> None:
        super().__init__()
        if policy not in ("lru", "lfu"):
            raise ValueError(f"a cache replaces by lru or lfu, got {policy!r}")
        if rows >= 2**31:
            raise ValueError(f"tags hold row numbers below 2^31, the store has {rows:,} rows")
        self.store_rows = rows
        self.ways = max(1, min(ways, slots))
        self.sets = max(1, slots // self.ways)
        self.policy = policy
        self.step = 0
        self.register_buffer("tags", torch.full((self.sets * self.ways,), EMPTY, dtype=torch.int32))
        stamps = torch.zeros(rows if policy == "lfu" else len(self.tags), dtype=torch.int32)
        self.register_buffer("stamps", stamps)

    def set_of(self, rows: Tensor) -> Tensor:
        """rows (U,) -> their sets (U,)."""
        return row_hash(rows, 0, self.sets)

    def find(self, rows: Tensor) -> Tensor:
        """rows (U,) -> their slots (U,), -1 where they are not in the cache."""
        return cache_probe(self.tags, self.ways, rows, self.store_rows)

    def place(self, rows: Tensor, uses: Tensor) -> Placed:
        """Find slots for a step's distinct rows (U,), used `uses` (U,) times, int64; tags move at once.

        Raises ValueError where shapes do not fit and, on a CPU with the C++ library, IndexError where a row
        is out of range; then nothing moves.
        """
        rows, uses = as_indices("rows", rows), as_indices("uses", uses)
        check_shape("uses", uses, rows.shape, "one for each of rows")
        native = native_for(self.tags, self.stamps, rows, uses)
        if native is not None:
            return self._native_place(native, rows, uses)
        return self._torch_place(rows, uses)

    def _native_place(self, library: CDLL, rows: Tensor, uses: Tensor) -> Placed:
        """`place`, native/row_cache.cpp."""
        slot, evicted, freed = (torch.empty_like(rows) for _ in range(3))
        was_there = torch.empty(len(rows), dtype=torch.bool)
        changed = library.autoembed_cache_place(
            *(address(self.tags), self.sets, self.ways, address(self.stamps), self.policy == "lfu"),
            *(self.step + 1, self.store_rows, address(rows), address(uses), len(rows)),
            *map(address, (slot, was_there, evicted, freed)),
        )
        checked(changed, rows, self.store_rows, "row")
        self.step += 1
        return Placed(slot, was_there, evicted[:changed], freed[:changed])

    def _torch_place(self, rows: Tensor, uses: Tensor) -> Placed:
        """`place` in torch, on any device."""
        self.step += 1
        slot = self.find(rows)
        was_there = slot >= 0
        if self.policy == "lfu":
            # no more than int32 holds; a step's rows are distinct
            self.stamps[rows] = (self.stamps[rows] + uses).clamp(max=2**31 - 1).int()
        else:
            self.stamps[slot[was_there]] = self.step
        missing = (~was_there).nonzero().squeeze(1)
        wanted, place = self._slots_for(rows[missing], slot[was_there])
        missing = missing[place]
        evicted = self.tags[wanted].long()
        self.tags[wanted] = rows[missing].int()
        if self.policy == "lru":
            self.stamps[wanted] = self.step
        slot[missing] = wanted
        held = evicted != EMPTY
        return Placed(slot, was_there, evicted[held], wanted[held])

    def _slots_for(self, rows: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        """Slots (M,) for some of the missing rows, and which of them (M,): at most one row a slot."""
        device = rows.device
        if len(rows) == 0:
            return rows.new_zeros(0), rows.new_zeros(0)
        sets = self.set_of(rows)
        # of a set's missing rows the most used ones first, so that under lfu none blocks a better one
        order = torch.arange(len(rows), device=device)
        if self.policy == "lfu":
            order = self.stamps[rows].argsort(descending=True, stable=True)
        order = order[sets[order].argsort(stable=True)]
        chosen = sets[order]
        begins = torch.ones(len(order), dtype=torch.bool, device=device)
        begins[1:] = chosen[1:] != chosen[:-1]
        number = begins.long().cumsum(0) - 1  # of the set, among those that miss something
        rank = torch.arange(len(order), device=device) - begins.nonzero().squeeze(1)[number]
        distinct = chosen[begins]
        slots = distinct.unsqueeze(1) * self.ways + torch.arange(self.ways, device=device)
        busy = torch.zeros(len(self.tags), dtype=torch.bool, device=device)
        busy[used] = True
        # what this step reads stays
        worth = self._worth(slots).masked_fill_(busy[slots], torch.iinfo(torch.int64).max)
        worth, ways = worth.sort(dim=1, stable=True)
        fits = rank < self.ways
        order, number, rank = order[fits], number[fits], rank[fits]
        going = worth[number, rank]
        free = going < torch.iinfo(torch.int64).max
        if self.policy == "lfu":
            free &= self.stamps[rows[order]] >= going
        taken = distinct[number] * self.ways + ways[number, rank]
        return taken[free], order[free]

    def _worth(self, slots: Tensor) -> Tensor:
        """The worth, int64, of what lies in slots: the smallest goes first; empty slots before all."""
        tags = self.tags[slots]
        stamps = self.stamps[tags.long().clamp(min=0) if self.policy == "lfu" else slots]
        return torch.where(tags != EMPTY, stamps.long(), EMPTY)

    def rows(self) -> tuple[Tensor, Tensor]:
        """The rows in the cache (H,) and their slots (H,)."""
        slots = (self.tags != EMPTY).nonzero().squeeze(1)
        return self.tags[slots].long(), slots

    @property
    def nbytes(self) -> int:
        """Bytes of tags and stamps."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self.buffers())


class ReferenceCache:
    """The same, row by row, in plain Python."""

    def __init__(self, rows: int, slots: int, ways: int, policy: str) -> None:
        like = RowCache(rows, slots, ways, policy)
        self.ways, self.sets, self.policy = like.ways, like.sets, policy
        self.tags = [EMPTY] * (self.sets * self.ways)
        self.last_use = [0] * len(self.tags)
        self.uses = [0] * rows
        self.step = 0
        self._set_of = [int(s) for s in like.set_of(torch.arange(rows))] if rows else []

    def place(self, rows: Sequence[int], uses: Sequence[int]) -> list[int]:
        """The slot of every row, or -1."""
        self.step += 1
        slots = [self._find(row) for row in rows]
        for row, count in zip(rows, uses, strict=True):
            self.uses[row] += count
        busy = {slot for slot in slots if slot >= 0}
        for slot in busy:
            self.last_use[slot] = self.step
        missing = [n for n, slot in enumerate(slots) if slot < 0]
        if self.policy == "lfu":
            missing.sort(key=lambda n: -self.uses[rows[n]])
        # slots are ranked once, before any of them is taken: the k-th missing row of a set gets the k-th
        ranked = {
            s: sorted(self._of_set(s), key=self._worth) for s in {self._set_of[rows[n]] for n in missing}
        }
        ranked = {s: [slot for slot in found if slot not in busy] for s, found in ranked.items()}
        worth = {slot: self._worth(slot) for found in ranked.values() for slot in found}
        taken: dict[int, int] = {}
        for n in missing:
            found = ranked[self._set_of[rows[n]]]
            at = taken.get(self._set_of[rows[n]], 0)
            taken[self._set_of[rows[n]]] = at + 1
            if at >= len(found):
                continue
            slot = found[at]
            if self.policy == "lfu" and self.uses[rows[n]] < worth[slot]:
                continue
            self.tags[slot], self.last_use[slot], slots[n] = rows[n], self.step, slot
        return slots

    def _find(self, row: int) -> int:
        return next((slot for slot in self._of_set(self._set_of[row]) if self.tags[slot] == row), EMPTY)

    def _of_set(self, number: int) -> range:
        return range(number * self.ways, (number + 1) * self.ways)

    def _worth(self, slot: int) -> int:
        if self.tags[slot] == EMPTY:
            return EMPTY
        return self.uses[self.tags[slot]] if self.policy == "lfu" else self.last_use[slot]
