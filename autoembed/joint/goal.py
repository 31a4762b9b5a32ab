"""Where steps go if a search is for the smallest model that loses at most so much.

What decides is the smallest budget that fine-tuning can bring within: it gets all steps that are left. It is
found going down, by what plans lose before a step is taken, and by what the next smaller one would lose.
"""

from collections.abc import Callable

SURE = 0.5  # of the allowed drop, up to which no step is spent: both splits have noise
REACH = 8.0  # times the allowed drop: what loses more before fine-tuning is taken to be out of reach
PORTION = 0.15  # of the steps of all points, for a budget behind which the next one is within reach


def steps_towards(
    drop: float, allowed: float, next_drop: Callable[[], float | None], left: int, total: int
) -> int:
    """Steps for a budget whose plan loses `drop` before any; `left` of `total` are not taken yet.

    `next_drop` is what the next smaller budget's plan loses, None where there is none; it is asked only
    where that matters.
    """
    if drop <= SURE * allowed or left <= 0:
        return 0
    following = next_drop()
    if following is None or following > REACH * allowed:
        return left
    return min(left, round(PORTION * total))
