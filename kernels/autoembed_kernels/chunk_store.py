"""A pool of chunks that many ids compete for: looked up by pointer, trained in place, moved by utility.

FIITED (arXiv:2401.04408): an id's vector of D values is k chunks of z = D / k. A table of pointers says
which chunks are in the pool; the others read zero and are not trained, but their gradient still counts:

    before a look-up      chunks of its rows that have no place take the free ones, if there are any
    after it              utility += |gradient of the chunk, summed over the look-ups of the row|
    every so often        utility *= decay,  threshold = quantile of a sample of all utilities
                          chunks in the pool below  (1 - margin) threshold  give up their place
                          chunks outside, above     (1 + margin) threshold  take free places, best first

Fills gaps of the paper: the norm is that of the step's sum, which is frequency x |mean gradient|; the
decay comes once a round, as in TorchRec's ITEP; the margin keeps chunks near the threshold from moving in
every round. The pool begins empty, and who comes first takes a place; it may `shrink` between rounds. Where
fields are told apart, `field_scales` says how their utilities are compared, by the threshold, too. A chunk
that takes a place which another gave up grows from zero, with optimizer state zero, as the paper's do.
Departs from what is told of it: places that nobody held yet hold N(0, std^2). Were all of them zero, chunks
that are multiplied with one another would never get a gradient.

Virtual ids are a space of addresses that may be far larger than what is ever looked up. An id gets an entry,
its pointers and utility, when it is first admitted or trained; before, it costs 4 bytes, an entry's number:

    bytes = 8 k V                 V ids that all have their entries, id v the entry v
            4 V + 8 k E           V virtual ids, E of them met; E is up to 1/8 ahead of what is met
            + what the pool, its optimizer state and the stack of free places take
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoembed_kernels.chunk_look_up import ABSENT, chunk_look_up, pointers_of
from autoembed_kernels.chunk_rounds import admit, choose_moves
from autoembed_kernels.chunk_step import chunk_step, number_entries
from autoembed_kernels.dedupe import Repeats
from autoembed_kernels.field_scales import FieldScales, field_scales
from autoembed_kernels.row_update import RowOptimizer

GROWTH = 8  # entries grow by one part of so many
LEAST_DECAY = 1e-6  # a round decides by what is left: of nothing all chunks are alike
_SAMPLES = 1 << 16  # utilities that the threshold is read from


class ChunkStore:
    """Entries' pointers (E, k) int32 and utilities (E, k) float32; pool (P, z) float32 with its optimizer
    state; the stack `free` (P,) int32 of which the first `free_count` are unused places.

    Of virtual ids `entry` (V,) int32 is the number of an id's entry or ABSENT, and `entry_count` of E are
    taken, in the order in which ids came: an entry never changes its id. Of others `entry` is None and E = V.
    """

    def __init__(
        self,
        ids: int,
        chunks: int,
        dim: int,
        places: int,
        optimizer: RowOptimizer,
        std: float,
        generator: torch.Generator,
        *,
        virtual: bool = False,
    ) -> None:
        """`dim` is that of the whole vector, `generator` one of the CPU that the store draws from while it
        lives. Raises ValueError where `dim` is no multiple of `chunks`.
        """
        if chunks < 1 or dim % chunks:
            raise ValueError(f"dimension {dim} cannot be cut into {chunks} chunks alike")
        if not 0 < places < 2**31:
            raise ValueError(f"the pool needs 1 to {2**31 - 1} places, got {places}")
        self.entry = torch.full((ids,), ABSENT, dtype=torch.int32) if virtual else None
        self.entry_count = 0 if virtual else ids
        self.pointers = torch.full((self.entry_count, chunks), ABSENT, dtype=torch.int32)
        self.utility = torch.zeros(self.entry_count, chunks)
        self.pool = torch.randn(places, dim // chunks, generator=generator) * std
        self.optimizer, self.generator = optimizer, generator
        self.state = optimizer.state(self.pool)
        self.free = torch.arange(places - 1, -1, -1, dtype=torch.int32)
        self.free_count = places

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held between steps."""
        held = (self.pointers, self.utility, self.pool, self.free, *self.state.values())
        entries = 0 if self.entry is None else self.entry.nbytes
        return entries + sum(tensor.nbytes for tensor in held)

    def pointers_of(self, rows: Tensor) -> Tensor:
        """rows (N,) -> (N, k) int32: places in the pool, ABSENT where a chunk has none."""
        return pointers_of(self.pointers, self.entry, rows)

    def keep_entries(self, count: int) -> None:
        """Make room for `count` entries, or drop those behind them; ids keep the entries that are left."""
        for name, fill in (("pointers", ABSENT), ("utility", 0)):
            held = getattr(self, name)
            resized = held.new_full((count, held.shape[1]), fill)
            kept = min(count, len(held))
            resized[:kept] = held[:kept]
            setattr(self, name, resized)

    def _entries(self, rows: Tensor) -> Tensor:
        """rows (U,) distinct -> their entries (U,); ids without one get the next, in order."""
        if self.entry is None:
            return rows
        entries, self.entry_count = number_entries(self.entry, rows, self.entry_count)
        if self.entry_count > len(self.pointers):
            self.keep_entries(min(self.entry_count + self.entry_count // GROWTH, len(self.entry)))
        return entries

    def look_up(self, rows: Tensor) -> Tensor:
        """rows (N,) -> vectors (N, D), chunks that are not in the pool zero."""
        return chunk_look_up(self.pool, self.pointers, self.entry, rows)

    def step(
        self, rows: Tensor, gradient: Tensor, learning_rate: float, repeats: Repeats | None = None
    ) -> None:
        """rows (U,) distinct, gradient (U, D) summed over each row's look-ups, or with `repeats` (N, D) of
        all look-ups: train what is in the pool, and add to the utility of all, in the pool or not.
        """
        entries = self._entries(rows)
        held = (self.pool, self.state, self.utility, self.pointers)
        chunk_step(self.optimizer, *held, entries, gradient, learning_rate, repeats)

    def admit(self, rows: Tensor) -> None:
        """rows (U,) distinct, about to be looked up: those of their chunks that are in no place take what is
        free, in order.
        """
        if self.free_count:
            entries = self._entries(rows)  # may make the pointers anew
            self.free_count = admit(self.pointers, entries, self.free, self.free_count)

    def _take(self, count: int) -> Tensor:
        """Places (count,) off the stack; their state is zero, and so are weights that were held before."""
        self.free_count -= count
        return self.free[self.free_count : self.free_count + count].clone()

    def _give_back(self, places: Tensor) -> None:
        self.free[self.free_count : self.free_count + len(places)] = places
        self.free_count += len(places)
        index = places.long()
        for state in (self.pool, *self.state.values()):
            state.index_fill_(0, index, 0)

    def shrink(self, places: int, fields: Sequence[tuple[int, int]] | None = None) -> int:
        """Leave a pool of `places`, at most as many as there are; returns how many chunks gave up theirs.

        Those of the least utility do, compared as in `rebalance`. Chunks that lie behind move to free places
        before them, with their optimizer state; what was held and is free then is zero, and so is its state.
        """
        pointers, utility = (
            self.pointers[: self.entry_count].view(-1),
            self.utility[: self.entry_count].view(-1),
        )
        held = (pointers >= 0).nonzero().squeeze(1)
        excess = max(0, len(held) - places)
        if excess:
            scales = self._scales(fields)
            useful = utility[held] if scales is None else scales.divide(utility[held], held)
            pointers[held[useful.topk(excess, largest=False).indices]] = ABSENT
            held = (pointers >= 0).nonzero().squeeze(1)
        at = pointers[held].long()
        is_free = torch.ones(len(self.pool), dtype=torch.bool, device=self.pool.device)
        is_free[at] = False
        was_free = torch.zeros_like(is_free)
        was_free[self.free[: self.free_count].long()] = True  # zero, or never held
        moves = held[at >= places]
        sources = pointers[moves].long()
        targets = is_free[:places].nonzero().squeeze(1)[: len(moves)]
        pointers[moves] = targets.int()
        is_free[targets] = False
        free = is_free[:places].nonzero().squeeze(1)
        left = (is_free & ~was_free)[:places].nonzero().squeeze(1)
        self.pool[targets] = self.pool[sources]
        self.pool = self.pool[:places].clone()
        self.pool[left] = 0
        for name, state in self.state.items():
            state[targets] = state[sources]
            self.state[name] = state[:places].clone()
            self.state[name][left] = 0
        self.free = self.free[:places].clone()
        self.free[: len(free)] = free.int()
        self.free_count = len(free)
        return excess

    def resize(self, places: int) -> None:
        """Make room for a pool of `places` that is about to be loaded, with its pointers; all are free."""
        self.pool = self.pool.new_zeros(places, self.pool.shape[1])
        self.state = self.optimizer.state(self.pool)
        self.free = torch.arange(places - 1, -1, -1, dtype=torch.int32, device=self.pool.device)
        self.free_count = places
        self.pointers.fill_(ABSENT)

    def count_free(self) -> None:
        """Where pointers and pool were replaced from outside: free are the places that no pointer names.

        These hold the weights that they were put back with; their state is set to zero.
        """
        is_free = torch.ones(len(self.pool), dtype=torch.bool, device=self.pool.device)
        is_free[self.pointers[self.pointers >= 0].long()] = False
        places = is_free.nonzero().squeeze(1)
        self.free_count = len(places)
        self.free[: self.free_count] = places.int()
        for state in self.state.values():
            state.index_fill_(0, places, 0)

    def rebalance(
        self, decay: float, margin: float, fields: Sequence[tuple[int, int]] | None = None
    ) -> tuple[int, int]:
        """One round; returns how many chunks left the pool and how many came in.

        `decay` counts as LEAST_DECAY at least.
        `fields`, of ids that are not virtual: the entries of each, first and behind the last, in order and
        together all. Utilities are compared as `field_scales` says then.
        """
        pointers, utility = self.pointers[: self.entry_count], self.utility[: self.entry_count]
        scales = self._scales(fields)
        decay = max(decay, LEAST_DECAY)
        threshold = self._threshold(decay, scales)
        choose = choose_moves if scales is None else scales.choose_moves
        leave, come = choose(pointers, utility, decay, (1 - margin) * threshold, (1 + margin) * threshold)
        pointers, utility = pointers.view(-1), utility.view(-1)
        self._give_back(pointers[leave])
        pointers[leave] = ABSENT
        if len(come) > self.free_count:
            useful = utility[come] if scales is None else scales.divide(utility[come], come)
            come = come[useful.topk(self.free_count).indices]
        pointers[come] = self._take(len(come))
        return len(leave), len(come)

    def _scales(self, fields: Sequence[tuple[int, int]] | None) -> FieldScales | None:
        return None if fields is None else field_scales(self.utility, fields)

    def _threshold(self, decay: float, scales: FieldScales | None) -> float:
        """The utility above which about as many chunks lie as the pool has places, once all have decayed;
        with scales, of utilities that are divided by them.
        """
        utility = self.utility[: self.entry_count].view(-1)
        if len(self.pool) >= len(utility):
            return 0.0
        sample, chunks = utility, None
        if len(utility) > _SAMPLES:
            drawn = torch.randint(0, len(utility), (_SAMPLES,), generator=self.generator)
            chunks = drawn.to(utility.device)
            sample = utility[chunks]
        if scales is not None:
            every = torch.arange(len(utility), device=utility.device) if chunks is None else chunks
            sample = scales.divide(sample, every)
        above = min(max(1, round(len(sample) * len(self.pool) / len(utility))), len(sample) - 1)
        # half-way between the last that fits and the first that does not
        largest = (sample * decay).topk(above + 1).values
        return float(largest[-2:].mean())
