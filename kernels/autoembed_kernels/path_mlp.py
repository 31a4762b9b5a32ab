"""Rows on their way through small networks, a network for every remainder, whose weights are stored as rows.

Shi et al., arXiv:1909.02107, section 4: path-based compositional embeddings. With x (D,) the quotient row and
h hidden units,

    y = W2 relu(W1 x + b1) + b2

and the network is `path_rows(h, D)` rows of D values: W1 (h, D), then W2 transposed (h, D), then b2 (D,),
then b1 (h,) in as many rows as it takes, zeros behind it.

With m rows a network and c networks behind Q quotient rows, n ids take s = Q + c m stored rows; c is the
smallest number with c (s - c m) >= n, so that n, s and m say it all. ceil(n / c) + c m falls until c is about
sqrt(n / m) and rises behind it: there as many rows make fewer networks, and `thriftiest_networks` is the end.
"""

import math

import torch
from torch import Tensor

HIDDEN_STEP = 8  # hidden units come in multiples of it


def path_rows(hidden: int, dim: int) -> int:
    """Rows of `dim` values that a network of so many hidden units takes."""
    return 2 * hidden + 1 + -(-hidden // dim)


def thriftiest_networks(ids: int, rows: int) -> int:
    """The number of networks of `rows` rows with which `ids` ids take the fewest stored rows."""
    below = max(1, math.isqrt(ids // rows))
    return min((below, below + 1), key=lambda networks: -(-ids // networks) + networks * rows)


def path_networks(ids: int, stored: int, rows: int) -> int:
    """c: the fewest networks of `rows` rows with which `stored` rows serve `ids` ids; 0 where none do."""
    square = stored * stored - 4 * rows * ids
    if square < 0:
        return 0
    count = max(1, (stored - math.isqrt(square)) // (2 * rows) - 1)
    while count * rows < stored:
        if count * (stored - count * rows) >= ids:
            return count
        count += 1
    return 0


def path_mlp(x: Tensor, weights: Tensor, hidden: int) -> Tensor:
    """x (P, D) through the network of weights (path_rows(hidden, D), D) -> (P, D)."""
    first, second, end = weights[:hidden], weights[hidden : 2 * hidden], weights[2 * hidden]
    bias = weights[2 * hidden + 1 :].flatten()[:hidden]
    return (x @ first.T + bias).relu() @ second + end


def reference(x: Tensor, weights: Tensor, hidden: int) -> Tensor:
    """The same in float64, a row, a unit and a value at a time."""
    dim = x.shape[1]
    w, rows = weights.double(), x.double()
    out = torch.zeros_like(rows)
    for row in range(len(rows)):
        out[row] = w[2 * hidden]
        for unit in range(hidden):
            bias = w[2 * hidden + 1 + unit // dim, unit % dim]
            active = max(0.0, float(sum(w[unit, j] * rows[row, j] for j in range(dim)) + bias))
            out[row] += active * w[hidden + unit]
    return out
