"""How packed segments that share what they store are addressed: pairs of rows, and blocks of a pool."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from autoembed.pool_address import PoolAddress
from autoembed.quotient_pairs import QuotientPairs
from autoembed_kernels.look_up_shared import POOLED, SIGNED, SharedRows


class SharedAddress(nn.Module):
    """The numbers of `look_up_shared` for the segments of a plan: buffers of its pairs and its pool."""

    how: Tensor

    def __init__(self, pairs: QuotientPairs, pool: PoolAddress, dim: int) -> None:
        super().__init__()
        self.pairs, self.pool = pairs, pool
        how = pairs.how.masked_fill(pool.pooled, POOLED).masked_fill(pool.signed, SIGNED)
        self.register_buffer("how", how, persistent=False)
        block = 0 if pool.pool is None else pool.pool.dim
        self._rows = SharedRows(
            **self._tensors(),
            block=block,
            blocks=pool.blocks,
            slots=0 if pool.pool is None else pool.pool.stored_rows * block,
            dim=dim if block else 0,
            kinds=tuple(sorted(set(how.tolist()))),
        )

    def rows(self) -> SharedRows:
        """By the modules' buffers, which moving them replaces; an equal one is kept with what C++ got."""
        tensors = self._tensors()
        if any(getattr(self._rows, name) is not tensor for name, tensor in tensors.items()):
            self._rows = replace(self._rows, **tensors)
        return self._rows

    def _tensors(self) -> dict[str, Any]:
        pairs, pool = self.pairs, self.pool
        found = {name: getattr(pairs, name) for name in ("ids", "multiplier", "remainders", "quotients")}
        placed = {"index_at": pool.at, "masks": pool.masks, "index": pool.segment_index}
        return {"how": self.how, **found, **placed}
