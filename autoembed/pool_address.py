"""Where rows of pooled segments begin to read in the plan's pool: by their number, or by their signature.

Used while training and by the packed tables, so that both read the same values.
"""

import torch
from torch import Tensor, nn

from autoembed.plan import Plan, Sharing
from autoembed.segment_index import placed_index
from autoembed_kernels.pool_slots import pool_slots
from autoembed_kernels.signature_pool import key_masks, read_signatures, signature_slots


class PoolAddress(nn.Module):
    """The pooled segments of a plan (S segments of any sharing), whose fields have dimension `dim`.

    segment_index uint8: the index bytes of all segments behind one another, with the signatures.
    `pool` is the segment that stores the pool; None where there is none.
    """

    segment_index: Tensor
    pooled: Tensor
    signed: Tensor
    at: Tensor
    start: Tensor
    field: Tensor
    masks: Tensor

    def __init__(self, plan: Plan, segment_index: Tensor, dim: int) -> None:
        super().__init__()
        self.pool = plan.pool
        segments = list(placed_index(plan))
        signed = [s.sharing is Sharing.SIGNATURE_POOL for _, s, _ in segments]
        self.any_signed = any(signed)
        for name, values in (
            ("at", [at for _, _, at in segments]),
            ("start", [s.start for _, s, _ in segments]),
            ("field", [field for field, _, _ in segments]),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
        self.blocks = 0 if self.pool is None else -(-dim // self.pool.dim)
        keys = torch.tensor([s.chunks if one else 1 for (_, s, _), one in zip(segments, signed, strict=True)])
        self.register_buffer("masks", key_masks(self.blocks)[keys - 1], persistent=False)  # (S, blocks)
        self.register_buffer("signed", torch.tensor(signed, dtype=torch.bool), persistent=False)
        pooled = [s.sharing.is_pooled for _, s, _ in segments]
        self.register_buffer("pooled", torch.tensor(pooled, dtype=torch.bool), persistent=False)
        self.register_buffer("segment_index", segment_index, persistent=False)

    def forward(self, segment: Tensor, place: Tensor) -> Tensor:
        """Look-ups (N,) by their pooled segment and their row in it -> (N, blocks), where blocks begin."""
        assert self.pool is not None
        block, slots = self.pool.dim, self.pool.stored_rows * self.pool.dim
        row = place + self.start[segment]
        begins = pool_slots(row, self.field[segment], self.blocks, block, slots)
        if not self.any_signed:
            return begins
        chosen = self.signed[segment].nonzero().squeeze(1)
        where = segment[chosen]
        signatures = read_signatures(self.segment_index, self.at[where] + 8 * place[chosen])
        return begins.index_copy(0, chosen, signature_slots(signatures, self.masks[where], block, slots))
