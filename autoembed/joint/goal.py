"""Where steps go if a search is for the smallest model that loses at most so much.

Going down, a budget whose plan is surely within, at the first one after its trials of settings, takes none.
Others take a portion; the last one that steps may bring within, by what the next smaller one loses before
any, takes all that is left, if steps help at all. Behind a budget that is not within after its steps no other
takes any.
"""

from collections.abc import Callable

SURE = 0.5  # of the allowed drop, up to which no step is spent: both splits have noise
REACH = 8.0  # times the allowed drop: what loses more before fine-tuning is taken to be out of reach
PORTION = 0.15  # of the steps of all points


def portion(drop: float, allowed: float, left: int, total: int) -> int:
    """The first steps for a budget that loses `drop` without them; `left` of `total` are not taken yet."""
    return 0 if drop <= SURE * allowed else min(left, round(PORTION * total))


def rest(drop: float, before: float, allowed: float, next_drop: Callable[[], float | None], left: int) -> int:
    """Steps to train the same plan anew with, where steps led from `before`, as it stood, to `drop`.

    `next_drop` is what the next smaller budget's plan loses, None where there is none; it is asked only where
    that matters: nothing is saved for it where this one is not within.
    """
    if left <= 0 or drop >= before:
        return 0
    if drop > allowed:
        return left
    following = next_drop()
    return left if following is None or following > REACH * allowed else 0
