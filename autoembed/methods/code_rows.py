"""Rows held as integer codes of 4 or 8 bits with a step each, packed while they train; no float32 copy.

A row of b bits is codes c of -(2^(b-1) - 1) .. 2^(b-1) - 1 and a step s of its own: the value is c s, with s
= max |w| / (2^(b-1) - 1) of the row as it was written, rounded up to 8 significant bits and at least 2^-14,
so that a packed row holds s exactly in half precision, and FBGEMM's bias, 2^(b-1) s, too. Codes are rounded
by chance, by bits of (seed, number of the write, row, column) alone.
"""

import torch
from torch import Tensor, nn

from autoembed.methods.base import TableSpec, initial_rows, unread_rows
from autoembed_kernels.bitpack import pack_bits, packed_row_bytes, unpack_bits
from autoembed_kernels.philox import row_chances
from autoembed_kernels.row_update import RowOptimizer, row_update
from autoembed_kernels.stochastic_round import stochastic_codes

_CHUNK_ROWS = 1 << 16  # first values are drawn in pieces of so many float32 rows


class CodeRows(nn.Module):
    """weight (R, ceil(D b / 8)) uint8: packed codes; steps (R,) float16, or `step_dtype`.

    The optimizer's state of every row is float32. First values and the rounding's seed come from `generator`.
    """

    weight: Tensor
    steps: Tensor

    def __init__(
        self,
        spec: TableSpec,
        bits: int,
        generator: torch.Generator,
        optimizer: RowOptimizer,
        step_dtype: torch.dtype = torch.float16,
    ) -> None:
        super().__init__()
        rows, dim = spec.stats.rows, spec.dim
        self.dim, self.bits, self.optimizer = dim, bits, optimizer
        self.seed = int(torch.randint(2**62, (), generator=generator))
        self.largest = (1 << (bits - 1)) - 1
        self.writes = 0
        self.register_buffer("weight", torch.zeros(rows, packed_row_bytes(dim, bits), dtype=torch.uint8))
        self.register_buffer("steps", torch.ones(rows, dtype=step_dtype))

        # the optimizer shapes its state after float32 rows, which are never made: this one takes no bytes
        for name, state in optimizer.state(torch.zeros(()).expand(rows, dim)).items():
            self.register_buffer(f"state_{name}", state.contiguous(), persistent=False)
        for start in range(0, rows, _CHUNK_ROWS):
            stop = min(start + _CHUNK_ROWS, rows)
            self.write(torch.arange(start, stop), initial_rows(spec, stop - start, generator))
        for piece in torch.split(unread_rows(spec.stats), _CHUNK_ROWS):
            self.write(piece, torch.zeros(len(piece), dim))

    @torch.no_grad()
    def stepped(self, rows: Tensor, values: Tensor, gradient: Tensor, learning_rate: float) -> Tensor:
        """One optimizer step on values (U, D) of distinct rows (U,): what they become; nothing is stored."""
        updated = values.detach().clone()
        names = self.optimizer.state_names
        state = {name: getattr(self, f"state_{name}").index_select(0, rows) for name in names}
        places = torch.arange(len(rows), device=rows.device)
        row_update(self.optimizer, updated, state, places, gradient, learning_rate)
        for name, moved in state.items():
            getattr(self, f"state_{name}").index_copy_(0, rows, moved)
        return updated

    def read(self, rows: Tensor) -> Tensor:
        """The values (N, D) float32 of rows (N,)."""
        packed = self.weight.index_select(0, rows)
        codes = unpack_bits(packed, self.dim, self.bits).float() - (1 << (self.bits - 1))
        return codes * self.steps[rows].float().unsqueeze(1)

    @torch.no_grad()
    def write(self, rows: Tensor, values: Tensor, steps: Tensor | None = None) -> None:
        """Store values (N, D) float32 in distinct rows (N,), up or down by chance.

        With `steps` (N, 1) given, what lies beyond the codes is clipped.
        """
        steps = self.row_steps(values) if steps is None else steps
        chances = row_chances(self.seed, self.writes, rows, self.dim)
        codes = stochastic_codes(values, steps, chances, -self.largest, self.largest)
        packed = pack_bits((codes.int() + (1 << (self.bits - 1))).to(torch.uint8), self.bits)
        self.weight.index_copy_(0, rows, packed)
        self.steps.index_copy_(0, rows, steps.squeeze(1).to(self.steps.dtype))
        self.writes += 1

    def row_steps(self, values: Tensor) -> Tensor:
        """values (N, D) -> the step of every row (N, 1) float32, which float16 and bfloat16 hold exactly."""
        # in float64, where 127 s / 127 is s again: a row that does not move keeps its step
        exact = (values.abs().amax(1, keepdim=True).double() / self.largest).float().clamp(min=2.0**-14)
        # up, not to the nearest: no code may exceed the largest
        return ((exact.view(torch.int32) + 0xFFFF) & ~0xFFFF).view(torch.float32)
