"""What training sees of stored rows: the values after rounding, with gradients passed straight through."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from autoembed.methods.plans import PlacedPart, PlacedSegment
from autoembed.plan import Profile, Segment
from autoembed_kernels.lsq import Grid, fake_quantize, grid_table


class StoredPrecision(nn.Module):
    """Rounds rows of the store to what their segments keep, with one learned step per step number.

    Where segments have `tails`, rows are rounded in blocks of columns, each with the step of its part.
    """

    def __init__(
        self,
        segments: Iterable[PlacedSegment],
        profile: Profile,
        weight: Tensor,
        steps: Tensor | None,
        offset: Tensor | None,
        gradient_scales: Tensor | None,
        *,
        tails: Sequence[PlacedPart] = (),
    ) -> None:
        super().__init__()
        segments = list(segments)
        self.profile = profile
        grids: dict[int, Grid] = {}
        parts: dict[int, list[Tensor]] = {}
        for _, s, first in segments:
            if s.is_integer and s.scale is not None:
                grids[s.scale] = Grid(s.bits, s.mid_rise)
                parts.setdefault(s.scale, []).append(weight[first : first + s.stored_rows])
        for tail in tails:
            s = tail.segment
            assert s.scale is not None, "tails are codes"
            grids[s.scale] = Grid(s.bits, s.mid_rise)
            stored = weight[tail.first : tail.first + s.stored_rows]
            parts.setdefault(s.scale, []).append(stored[:, tail.column : tail.column + s.dim])
        count = 1 + max(grids, default=-1)
        ordered = [grids.get(number, Grid(1)) for number in range(count)]
        if gradient_scales is None:
            sizes = [sum(part.numel() for part in parts.get(number, ())) for number in range(count)]
            gradient_scales = torch.tensor(
                [(max(size, 1) * 2 ** (g.bits - 1)) ** -0.5 for size, g in zip(sizes, ordered, strict=True)]
            )
        if steps is None:
            found = {number: first_step(parts[number], grid) for number, grid in grids.items()}
            steps = torch.tensor([found.get(number, 1.0) for number in range(count)])
        self.steps = nn.Parameter(steps[:count].clone()) if count else None
        self.offset = nn.Parameter(offset.clone()) if count and offset is not None else None
        self.kinds = tuple(sorted({_kind(s) for _, s, _ in segments}))
        for name, values, dtype in (
            ("first", [first for _, _, first in segments], torch.int64),
            ("kind", [_KINDS.index(_kind(s)) for _, s, _ in segments], torch.int64),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=dtype), persistent=False)
        self.block = math.gcd(
            weight.shape[1], *(n for tail in tails for n in (tail.column, tail.segment.dim))
        )
        step = torch.tensor([s.scale or 0 for _, s, _ in segments], dtype=torch.int64)
        if tails:
            step = step.unsqueeze(1).repeat(1, weight.shape[1] // self.block)
            numbers = {first: number for number, (_, _, first) in enumerate(segments)}
            for tail in tails:
                step[numbers[tail.first], tail.column // self.block :] = tail.segment.scale or 0
        self.register_buffer("step", step, persistent=False)
        self.register_buffer("grids", grid_table(ordered), persistent=False)
        self.register_buffer("gradient_scales", gradient_scales[:count], persistent=False)
        self.table: Tensor | None = None

    first: Tensor
    step: Tensor
    kind: Tensor
    grids: Tensor
    gradient_scales: Tensor

    def segment_of(self, rows: Tensor) -> Tensor:
        """rows (U,) of the store -> the numbers (U,) of their segments."""
        if self.table is not None:
            return self.table.index_select(0, rows)
        return torch.searchsorted(self.first, rows, right=True) - 1

    def tabulate(self, stored_rows: int) -> None:
        """Keep the segment of every row of the store, 8 bytes each, for many short steps."""
        if self.table is None:
            answers = self.segment_of(torch.arange(stored_rows, device=self.first.device))
            del self.table
            self.register_buffer("table", answers, persistent=False)

    def stored_steps(self) -> Tensor:
        """The steps (S,), positive, as the profile stores them; gradients pass straight through.

        A scale in the row is kept in half precision, with a bias of up to 2^(b-1) scales beside it in
        FBGEMM's formats: 8 significant bits leave room for that product.
        """
        if self.steps is None:
            return self.grids.new_zeros(0)
        if self.profile.row_scale_bytes == 0:
            return self.steps.abs()
        rounded = self.steps.detach().abs().bfloat16().float().clamp(min=2.0**-14)
        return self.steps.abs() + (rounded - self.steps.detach().abs())

    @property
    def is_float32(self) -> bool:
        """Whether rows are stored as they are."""
        return self.kinds in ((), ("fp32",))

    def forward(self, rows: Tensor, weights: Tensor) -> Tensor:
        """rows (U,) of the store, weights (U, D) -> (U, D) as stored."""
        if self.is_float32:
            return weights
        segment = self.segment_of(rows)
        kind = self.kind[segment].unsqueeze(1)
        values = weights
        for name, dtype in _ROUNDED.items():
            if name in self.kinds:
                rounded = weights + (weights.detach().to(dtype).float() - weights.detach())
                values = torch.where(kind == _KINDS.index(name), rounded, values)
        if "integer" in self.kinds:
            quantized = fake_quantize(
                weights.reshape(-1, self.block) if self.step.dim() == 2 else weights,
                self.stored_steps(),
                self.grids,
                self.gradient_scales,
                self.step[segment].flatten(),
                self.offset,
            ).view_as(weights)
            if self.kinds == ("integer",):
                return quantized
            values = torch.where(kind == _KINDS.index("integer"), quantized, values)
        return values


STEP_OF_ZEROS = 1e-4  # a step of 0 has no gradient, and would stay 0 whatever its rows learn
_ROUNDED = {"fp16": torch.float16, "bf16": torch.bfloat16}
_KINDS = ("fp32", "fp16", "bf16", "integer")


def _kind(segment: Segment) -> str:
    return "integer" if segment.is_integer else segment.precision


def first_step(parts: list[Tensor], grid: Grid) -> float:
    """The first step for weights (n, D): 2 mean|w| / sqrt(2^(b-1)), LSQ's rule; STEP_OF_ZEROS for zeros."""
    mean = sum(float(part.abs().sum()) for part in parts) / max(1, sum(part.numel() for part in parts))
    return 2 * mean / 2 ** ((grid.bits - 1) / 2) or STEP_OF_ZEROS
