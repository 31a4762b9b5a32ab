"""Codebooks of 2, 4, 8, ... rows, each from the one before: codes of points under every one of them.

Every centre is the weighted mean of its points. It is split into two, at the deviation of its points along
the column of their largest to both sides; then rounds of k-means follow: every point to its nearest centre,
every centre to the mean of its points, and one that has none to the point that loses the most by weight times
squared distance (Linde, Buzo and Gray, "An algorithm for vector quantizer design", 1980).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoembed_kernels.native.loader import address, native_for, threads
from autoembed_kernels.nearest_row import torch_nearest_row

MOST_LEVELS = 16  # centres of all of them are held at once


def reference(points: Tensor, shares: Tensor, rounds: Sequence[int]) -> list[list[int]]:
    """The same, point by point in float64."""
    values, weights = points.double(), shares.double()

    def mean(of: Tensor, code: int) -> Tensor:
        """Weighted, of the values that have the code; 0 where none has it."""
        own = torch.tensor([here == code for here in codes])
        share = (weights * own).unsqueeze(1)
        return (of * share).sum(0) / share.sum() if own.any() else torch.zeros_like(values[0])

    codes = [0] * len(values)
    found = []
    for level, count in enumerate(rounds):
        lower, upper = [], []
        for code in range(1 << level):
            centre = mean(values, code)
            spread = mean((values - centre).square(), code)
            aside = torch.zeros_like(centre)
            aside[spread.argmax()] = spread.max().sqrt()
            lower.append(centre - aside)
            upper.append(centre + aside)
        centres = torch.stack(lower + upper)
        for number in range(count + 1):
            far = (values.unsqueeze(1) - centres).square().sum(2)
            if number:
                lost = [float(weights[p] * far[p, codes[p]]) for p in range(len(values))]
                worst = sorted(range(len(values)), key=lambda p: -lost[p])
                served = set(codes)
                for code in range(len(centres)):
                    centres[code] = mean(values, code) if code in served else values[worst.pop(0)]
                far = (values.unsqueeze(1) - centres).square().sum(2)
            codes = far.argmin(1).tolist()
        found.append(codes)
    return found


def split_codes(points: Tensor, shares: Tensor, rounds: Sequence[int]) -> Tensor:
    """points (N, D), shares (N,) float32 above 0 -> codes (L, N) int64, those of level l below 2^(l + 1).

    rounds (L,): of k-means at each level, 0 or more. Where no more than 2^L points differ, codes are left
    without points. Raises ValueError where shapes do not fit, D is 0 or L above MOST_LEVELS.
    """
    fits = points.dim() == 2 and points.shape[1] > 0 and shares.shape == points.shape[:1]
    if not fits or len(rounds) > MOST_LEVELS or min(rounds, default=0) < 0:
        shapes = f"{tuple(points.shape)}, shares {tuple(shares.shape)}"
        raise ValueError(f"points {shapes} and rounds {tuple(rounds)} do not fit")
    # codes do not depend on the scale of shares, float32's sums of tiny ones do
    shares = shares / shares.amax() if len(shares) else shares
    points, shares = points.contiguous(), shares.contiguous()
    is_float = points.dtype == shares.dtype == torch.float32
    native = native_for(points, shares) if is_float else None
    if native is None or not len(points):
        return torch_split_codes(points, shares, rounds)
    codes = torch.empty(len(rounds), len(points), dtype=torch.int64)
    asked = torch.tensor(list(rounds), dtype=torch.int64)
    native.autoembed_split_codes(
        *(address(points), address(shares), *points.shape),
        *(address(asked), len(asked), address(codes), threads()),
    )
    return codes


def torch_split_codes(points: Tensor, shares: Tensor, rounds: Sequence[int]) -> Tensor:
    """`split_codes` in torch, on any device."""
    codes = points.new_zeros(len(points), dtype=torch.int64)
    found = [codes.new_zeros(0, len(points))]
    for level, count in enumerate(rounds):
        centres = _means(points, shares, codes, 1 << level)
        spread = _means((points - centres[codes]).square(), shares, codes, len(centres))
        widest = spread.argmax(1, keepdim=True)
        aside = torch.zeros_like(centres).scatter_(1, widest, spread.gather(1, widest).sqrt())
        centres = torch.cat([centres - aside, centres + aside])
        codes, far = torch_nearest_row(points, centres)
        for _ in range(count):
            served = shares.new_zeros(len(centres)).index_add_(0, codes, shares)
            means = _means(points, shares, codes, len(centres))
            centres = torch.where(served.unsqueeze(1) > 0, means, centres)
            empty = (served == 0).nonzero().squeeze(1)[: len(points)]
            if len(empty):
                centres[empty] = points[(shares * far).topk(len(empty)).indices]
            codes, far = torch_nearest_row(points, centres)
        found.append(codes.unsqueeze(0))
    return torch.cat(found)


def _means(values: Tensor, shares: Tensor, codes: Tensor, count: int) -> Tensor:
    """Weighted means (count, D) of the values of each code; 0 where it has none."""
    sums = values.new_zeros(count, values.shape[1]).index_add_(0, codes, values * shares.unsqueeze(1))
    total = shares.new_zeros(count).index_add_(0, codes, shares)
    return sums / total.clamp(min=1e-30).unsqueeze(1)
