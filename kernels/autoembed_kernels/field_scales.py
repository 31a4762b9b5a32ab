"""By what utilities are divided before chunks of different fields are compared.

    q_f    = 95th percentile of the utilities of field f above zero: the least of them that 95 % do not exceed
    scale  = q_f / largest q_f,  1 where no utility of the field is above zero
    a chunk of utility u in field f  is compared by  u / scale

AdaEmbed divides by q_f, which gives the same order. The largest scale is 1 here, so that chunks of a single
field are compared by their utilities to the bit. Utilities stay as they are in memory.

A field is a stretch of entries, first and behind the last. One of more than SAMPLES utilities is read from
evenly taken entries with all their chunks, or from all where nothing in those is above zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed_kernels.chunk_rounds import choose_moves

PERCENT = 95
SAMPLES = 1 << 14  # utilities that the percentile of a field is read from
_LEAST = torch.finfo(torch.float32).tiny  # a scale of zero would make zero divided by it no number


def reference(utility: list[list[float]], fields: Sequence[tuple[int, int]]) -> list[float]:
    """The scales, value by value, of fields that are read whole."""
    percentiles = []
    for first, last in fields:
        above = sorted(u for entry in utility[first:last] for u in entry if u > 0)
        enough = [u for place, u in enumerate(above, 1) if 100 * place >= PERCENT * len(above)]
        percentiles.append(enough[0] if enough else 0.0)
    return [q / max(percentiles) if q else 1.0 for q in percentiles]


@dataclass(frozen=True)
class FieldScales:
    """`scale` (F,) float32 of the fields; `ends` (F,) int64, the number of the first chunk behind each."""

    fields: tuple[tuple[int, int], ...]
    scale: Tensor
    ends: Tensor

    def divide(self, utility: Tensor, chunks: Tensor) -> Tensor:
        """Utilities (N,) of the chunks with these numbers (N,) -> what they are compared by (N,)."""
        return utility / self.scale[torch.bucketize(chunks, self.ends, right=True)]

    def choose_moves(
        self, pointers: Tensor, utility: Tensor, decay: float, low: float, high: float
    ) -> tuple[Tensor, Tensor]:
        """`chunk_rounds.choose_moves` with bounds of what is compared."""
        leave, come = [], []
        for (first, last), scale in zip(self.fields, self.scale.tolist(), strict=True):
            held = pointers[first:last], utility[first:last]
            leaving, coming = choose_moves(*held, decay, low * scale, high * scale)
            leave.append(leaving + first * pointers.shape[1])
            come.append(coming + first * pointers.shape[1])
        return torch.cat(leave), torch.cat(come)


def field_scales(utility: Tensor, fields: Sequence[tuple[int, int]]) -> FieldScales:
    """utility (E, k) float32; at least one field, in order, which together are all entries."""
    percentile = torch.stack([_percentile(utility[first:last]) for first, last in fields])
    # relative to the largest; where nothing is above zero, any scale compares alike
    scale = torch.where(percentile > 0, percentile / percentile.max(), 1.0).clamp(min=_LEAST)
    ends = torch.tensor([last * utility.shape[1] for _, last in fields], device=utility.device)
    return FieldScales(tuple(fields), scale, ends)


def _percentile(utility: Tensor) -> Tensor:
    """Of the values above zero of a field (R, k); 0 where there is none."""
    apart = max(1, -(-utility.numel() // SAMPLES))
    sample = utility[::apart]
    above = sample[sample > 0]
    if apart > 1 and not len(above):
        above = utility[utility > 0]
    if not len(above):
        return utility.new_zeros(())
    return above.kthvalue(-(-PERCENT * len(above) // 100)).values
