"""Places of n ids -> pairs of a quotient row and a remainder row; no two ids share both.

With c remainder rows, Q = stored - c quotient rows, c Q >= n, and a multiplier a coprime to n:

    p = (a * place) mod n,    quotient = p div c < Q,    remainder = p mod c < c

The step by a permutes the places first. Places are ranks by frequency; unpermuted, the c most frequent ids
would share one quotient row. Where all terms of the continued fraction of a / n are at most m, K places in a
row are permuted to places at least n / ((m + 2) K) apart, so that the Q / (m + 2) most frequent ids meet in
no quotient row. a is chosen for a small m, starting at 0.382 n (1 less the golden ratio, whose m is 1).

c is the smaller root of c (stored - c) >= n, so that n and the number of stored rows say it all. Everything
is exact below n = 2^32: a * place stays below 2^63. Dividing in float32, as some programs do, gives wrong
quotients above 2^24.
"""

import math

import torch
from torch import Tensor

ADD, MULTIPLY, CONCATENATE = range(3)

_GOLDEN = 1640531527  # 2^32 * (3 - sqrt(5)) / 2


def least_stored(ids: int) -> int:
    """The fewest rows, quotients and remainders together, that tell `ids` ids apart: ceil(2 sqrt(ids))."""
    root = math.isqrt(4 * ids)
    return root if root * root == 4 * ids else root + 1


def remainder_rows(ids: int, stored: int) -> int:
    """c: the fewest remainder rows with which `stored` rows tell `ids` ids apart.

    Raises ValueError where no number does, that is below `least_stored(ids)`.
    """
    if (stored // 2) * (stored - stored // 2) < ids:
        raise ValueError(
            f"{stored} rows make {(stored // 2) * (stored - stored // 2)} pairs, too few for {ids} ids; "
            f"store at least {least_stored(ids)}"
        )
    count = max(1, (stored - math.isqrt(stored * stored - 4 * ids)) // 2 - 1)
    while count * (stored - count) < ids:
        count += 1
    return count


def multiplier(ids: int) -> int:
    """a: of the 64 numbers from ids * 0.382 on, below `ids`, one without a common factor with `ids`.

    Among those the first whose continued fraction has the smallest largest term; 1 where none is left.
    """
    start = max(1, (ids * _GOLDEN) >> 32)
    found = [a for a in range(start, min(start + 64, ids)) if math.gcd(a, ids) == 1]
    return min(found, key=lambda a: largest_term(a, ids), default=1)


def largest_term(numerator: int, denominator: int) -> int:
    """The largest term of the continued fraction of numerator / denominator, both positive, below 1."""
    largest = 0
    while numerator:
        term, rest = divmod(denominator, numerator)
        largest = max(largest, term)
        numerator, denominator = rest, numerator
    return largest


def quotient_remainder(
    place: Tensor, ids: int | Tensor, multiplier: int | Tensor, remainder_rows: int | Tensor
) -> tuple[Tensor, Tensor]:
    """place (N,) int64 in [0, ids) -> quotient rows (N,) and remainder rows (N,), int64.

    The other arguments are numbers or (N,) int64 tensors: a place may belong to any of several tables.
    """
    permuted = place * multiplier % ids
    return permuted.div(remainder_rows, rounding_mode="floor"), permuted % remainder_rows


def combine(how: int, quotient: Tensor, remainder: Tensor, dim: Tensor) -> Tensor:
    """Vectors of quotient rows (N, W) and remainder rows (N, W), zero from column `dim` (N,) on -> (N, W).

    ADD: q + r. MULTIPLY: q * r. CONCATENATE: the first `dim` columns are q, the next `dim` are r.
    """
    if how == ADD:
        return quotient + remainder
    if how == MULTIPLY:
        return quotient * remainder
    behind = torch.arange(quotient.shape[1], device=dim.device) - dim.unsqueeze(1)  # (N, W)
    moved = remainder.gather(1, behind.clamp(min=0))
    return torch.where(behind < 0, quotient, moved)


def reference(place: int, ids: int, stored: int) -> tuple[int, int]:
    """The same for one place, in Python's exact integers."""
    return divmod(place * multiplier(ids) % ids, remainder_rows(ids, stored))
