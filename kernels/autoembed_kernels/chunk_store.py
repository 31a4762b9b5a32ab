"""A pool of chunks that many ids compete for: looked up by pointer, trained in place, moved by utility.

FIITED (arXiv:2401.04408): an id's vector of D values is k chunks of z = D / k. A table of pointers says
which chunks are in the pool; the others read zero and are not trained, but their gradient still counts:

    utility += |gradient of the chunk|, for every occurrence of the id
    every so often:   utility *= decay,  threshold = quantile of a sample of all utilities
                      chunks in the pool below  (1 - margin) threshold  give up their place
                      chunks outside, above     (1 + margin) threshold  take the free places, best first

A chunk that gets a place starts with zero weights and zero optimizer state. Fills gaps of the paper: the
decay comes once a round, as in TorchRec's ITEP, not with every occurrence; the margin keeps chunks near the
threshold from moving in every round. The pool has its final size from the start.
"""

import torch
from torch import Tensor

from autoembed_kernels.row_update import RowOptimizer, row_update

ABSENT = -1
_SAMPLES = 1 << 16  # utilities that the threshold is read from


class ChunkStore:
    """ids x chunks pointers (V, k) int32 and utilities (V, k) float32; pool (P, z) float32 with its optimizer
    state; the stack `free` (P,) int32 of which the first `free_count` are unused places.
    """

    def __init__(self, ids: int, chunks: int, dim: int, places: int, optimizer: RowOptimizer) -> None:
        """`dim` is that of the whole vector. Raises ValueError where it is no multiple of `chunks`."""
        if chunks < 1 or dim % chunks:
            raise ValueError(f"dimension {dim} cannot be cut into {chunks} chunks alike")
        if not 0 < places < 2**31:
            raise ValueError(f"the pool needs 1 to {2**31 - 1} places, got {places}")
        self.pointers = torch.full((ids, chunks), ABSENT, dtype=torch.int32)
        self.utility = torch.zeros(ids, chunks)
        self.pool = torch.zeros(places, dim // chunks)
        self.optimizer = optimizer
        self.state = optimizer.state(self.pool)
        self.free = torch.arange(places - 1, -1, -1, dtype=torch.int32)
        self.free_count = places

    def fill(self, std: float, generator: torch.Generator) -> None:
        """Give all places of an empty store to chunks drawn at random, with weights from N(0, std^2)."""
        count = min(len(self.pool), self.pointers.numel())
        chosen = torch.randperm(self.pointers.numel(), generator=generator)[:count]
        self.free_count -= count
        places = self.free[self.free_count : self.free_count + count].clone()
        self.pointers.view(-1)[chosen] = places
        self.pool[places.long()] = torch.randn(count, self.pool.shape[1], generator=generator) * std

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is held between steps."""
        held = (self.pointers, self.utility, self.pool, self.free, *self.state.values())
        return sum(tensor.nbytes for tensor in held)

    def look_up(self, rows: Tensor) -> Tensor:
        """rows (N,) -> vectors (N, D), chunks that are not in the pool zero."""
        pointers = self.pointers[rows]  # (N, k)
        values = self.pool[pointers.clamp(min=0).long()]  # (N, k, z)
        return torch.where((pointers >= 0).unsqueeze(2), values, 0.0).flatten(1)

    def step(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """rows (N,), repeats allowed, and the gradient (N, D) of each: train what is in the pool, and add to
        the utility of all, in the pool or not.
        """
        chunks = self.pointers.shape[1]
        by_chunk = gradient.view(len(rows), chunks, -1)
        self.utility.index_add_(0, rows, by_chunk.norm(dim=2))
        distinct, inverse = torch.unique(rows, return_inverse=True)
        sums = gradient.new_zeros(len(distinct), *by_chunk.shape[1:]).index_add_(0, inverse, by_chunk)
        pointers = self.pointers[distinct]
        present = pointers >= 0
        row_update(
            self.optimizer, self.pool, self.state, pointers[present].long(), sums[present], learning_rate
        )

    def rebalance(self, decay: float, margin: float, generator: torch.Generator) -> tuple[int, int]:
        """One round; returns how many chunks left the pool and how many came in."""
        self.utility *= decay
        threshold = self._threshold(generator)
        pointers, utility = self.pointers.view(-1), self.utility.view(-1)
        leave = ((pointers >= 0) & (utility < (1 - margin) * threshold)).nonzero().squeeze(1)
        self.free[self.free_count : self.free_count + len(leave)] = pointers[leave]
        self.free_count += len(leave)
        pointers[leave] = ABSENT
        # a utility of zero was never looked up
        wanted = (pointers < 0) & (utility > (1 + margin) * threshold) & (utility > 0)
        come = wanted.nonzero().squeeze(1)
        if len(come) > self.free_count:
            come = come[utility[come].topk(self.free_count).indices]
        places = self.free[self.free_count - len(come) : self.free_count].clone()
        self.free_count -= len(come)
        pointers[come] = places
        self.pool[places.long()] = 0
        for state in self.state.values():
            state[places.long()] = 0
        return len(leave), len(come)

    def _threshold(self, generator: torch.Generator) -> float:
        """The utility above which about as many chunks lie as the pool has places."""
        utility = self.utility.view(-1)
        if len(self.pool) >= len(utility):
            return 0.0
        sample = utility
        if len(utility) > _SAMPLES:
            sample = utility[torch.randint(0, len(utility), (_SAMPLES,), generator=generator)]
        above = min(max(1, round(len(sample) * len(self.pool) / len(utility))), len(sample) - 1)
        # half-way between the last that fits and the first that does not
        largest = sample.topk(above + 1).values
        return float(largest[-2:].mean())
