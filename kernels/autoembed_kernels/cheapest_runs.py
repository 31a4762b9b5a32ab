"""A choice for every group at a price for a byte, where neighbours of a field that choose alike share a run.

    least over c of  sum over g of  losses[g, c_g] + price (sizes[g, c_g] + run[g, c_g] where a run begins)

by dynamic programming along the groups: a group goes on with its neighbour's choice, where that joins, or
begins a run behind the best of all. Every price is worked out by itself, in float64.
"""

from itertools import product

import torch
from torch import Tensor

from autoembed_kernels.native.loader import address, native_for, threads


def reference(
    losses: Tensor, sizes: Tensor, run: Tensor, joins: Tensor, is_first: Tensor, price: float
) -> tuple[list[int], float]:
    """One price, every combination of choices tried."""
    groups, choices = losses.shape
    losses, sizes, run = losses.double(), sizes.double(), run.double()

    def value(chosen: tuple[int, ...]) -> float:
        total = 0.0
        for g, c in enumerate(chosen):
            goes_on = not is_first[g] and chosen[g - 1] == c and bool(joins[c])
            total += float(losses[g, c] + price * (sizes[g, c] + (0 if goes_on else run[g, c])))
        return total

    best = min(product(range(choices), repeat=groups), key=value)
    return list(best), value(best)


def cheapest_runs(
    losses: Tensor, sizes: Tensor, run: Tensor, joins: Tensor, is_first: Tensor, prices: Tensor
) -> tuple[Tensor, Tensor]:
    """losses, sizes, run (G, C), prices (P,) -> choices (P, G) int64 and their values (P,) float64.

    joins (C,): whether neighbours that make a choice share a run; is_first (G,): whether a group is the first
    of its field. C above 0. Losses may be infinite, where a choice is forbidden, and are not NaN. Raises
    ValueError where shapes do not fit.
    """
    groups, choices = losses.shape
    fits = losses.shape == sizes.shape == run.shape and joins.shape == (choices,)
    if not choices or not fits or is_first.shape != (groups,) or prices.dim() != 1:
        shapes = [tuple(x.shape) for x in (losses, sizes, run, joins, is_first, prices)]
        raise ValueError(f"losses, sizes, run, joins, is_first and prices of shapes {shapes} do not fit")
    losses, sizes, run, prices = (x.double().contiguous() for x in (losses, sizes, run, prices))
    joins, is_first = joins.bool().contiguous(), is_first.bool().contiguous()
    native = native_for(losses, sizes, run, joins, is_first, prices)
    if native is None:
        return torch_cheapest_runs(losses, sizes, run, joins, is_first, prices)
    chosen, values = torch.empty(len(prices), groups, dtype=torch.int64), torch.empty_like(prices)
    native.autoembed_cheapest_runs(
        *map(address, (losses, sizes, run, joins, is_first)),
        *(groups, choices, address(prices), len(prices), address(chosen), address(values), threads()),
    )
    return chosen, values


def torch_cheapest_runs(
    losses: Tensor, sizes: Tensor, run: Tensor, joins: Tensor, is_first: Tensor, prices: Tensor
) -> tuple[Tensor, Tensor]:
    """`cheapest_runs` in torch, all prices together."""
    groups, choices = losses.shape
    by_price = prices.unsqueeze(1)
    total = losses.new_zeros(len(prices), choices)
    goes_on, came_from = [], []
    for g in range(groups):
        came_from.append(total.argmin(1))
        begun = total.gather(1, came_from[g].unsqueeze(1)) + by_price * run[g]
        goes_on.append((total <= begun) & joins & ~is_first[g])
        total = torch.where(goes_on[g], total, begun) + losses[g] + by_price * sizes[g]
    at = total.argmin(1)
    values = total.gather(1, at.unsqueeze(1)).squeeze(1)
    chosen = at.new_empty(len(prices), groups)
    for g in reversed(range(groups)):
        chosen[:, g] = at
        at = torch.where(goes_on[g].gather(1, at.unsqueeze(1)).squeeze(1), at, came_from[g])
    return chosen, values
