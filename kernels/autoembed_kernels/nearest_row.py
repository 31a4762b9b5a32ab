"""Which of a few centres lies nearest to each point: the codes of a codebook.

    code[n] = the first k with the least  sum over d of (points[n, d] - centres[k, d])^2

In C++ four centres are compared at a time with 32 points by their products, which may take another centre
where two are equally near to float32's rounding of the points' squares; no matrix of distances is kept.
"""

import torch
from torch import Tensor

from autoembed_kernels.native.loader import address, native_for, threads

_TOGETHER = {"cpu": 1 << 18, "cuda": 1 << 26}  # differences that the torch path holds at once


def reference(points: Tensor, centres: Tensor) -> list[int]:
    """The same, centre by centre in float64."""
    codes = []
    for point in points.double():
        away = [float((point - centre).square().sum()) for centre in centres.double()]
        codes.append(away.index(min(away)))
    return codes


def nearest_row(points: Tensor, centres: Tensor) -> Tensor:
    """points (N, D), centres (K, D) float32, K above 0 -> codes (N,) int64.

    Raises ValueError where shapes do not fit. Points that hold NaN get any code.
    """
    if points.dim() != 2 or centres.dim() != 2 or points.shape[1] != centres.shape[1] or not len(centres):
        raise ValueError(f"points {tuple(points.shape)} and centres {tuple(centres.shape)} do not fit")
    points, centres = points.contiguous(), centres.contiguous()
    is_float = points.dtype == centres.dtype == torch.float32
    native = native_for(points, centres) if is_float else None
    if native is None:
        return torch_nearest_row(points, centres)[0]
    codes = torch.empty(len(points), dtype=torch.int64)
    native.autoembed_nearest_row(
        address(points), *points.shape, address(centres), len(centres), address(codes), threads()
    )
    return codes


def torch_nearest_row(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """`nearest_row` in torch, on any device, and the squared distances (N,): 0 exactly of equal rows."""
    step = max(1, _TOGETHER.get(points.device.type, 1 << 18) // max(1, centres.numel()))
    codes, far = [points.new_zeros(0, dtype=torch.int64)], [points.new_zeros(0)]
    for part in torch.split(points, step):
        least = (part.unsqueeze(1) - centres).square().sum(2).min(1)
        codes.append(least.indices)
        far.append(least.values)
    return torch.cat(codes), torch.cat(far)
