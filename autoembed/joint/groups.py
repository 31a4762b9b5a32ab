"""Groups of ids that are compressed alike: numbers of rows that double, cut as by frequency, none too large.

Row 0 of a field, the out-of-vocabulary row, is a group of its own, because ids that are pruned read it. The
head is cut finely, since few rows carry most look-ups there. The tail is cut so that no group holds more
than a share of all rows: with one coarse tail group a front has a cliff where that group is pruned.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autoembed.methods.ranks import refuse_unranked
from autoembed.stats import Counts, Stats

FIRST = 8  # rows of the first group behind row 0
LARGEST = 0.01  # of all rows, in one group
MOST = 300  # groups in all; beyond it the first groups and the largest are widened


@dataclass(frozen=True)
class Group:
    """Rows [start, stop) of a field."""

    field: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def groups_of(stats: Stats, *, largest: float = LARGEST, most: int = MOST) -> tuple[Group, ...]:
    """Groups that tile all fields, in the order of fields and rows; at most `most` where fields allow it.

    Raises ValueError where rows of a field are in no order of frequency.
    """
    refuse_unranked(stats, "the joint search", "the spaces of methods that need no ranks (docs/methods.md)")
    first = FIRST
    counts = [field.ranked_counts for field in stats.fields]  # by frequency, whatever the order of rows
    while True:
        cap = max(1, int(largest * stats.rows))
        groups = tuple(
            Group(number, start, stop)
            for number, of_rows in enumerate(counts)
            for start, stop in _ranges(of_rows, first, cap)
        )
        if len(groups) <= max(most, 2 * len(stats.fields)):
            return groups
        first, largest = 2 * first, 1.3 * largest


def _ranges(counts: Counts, first: int, cap: int) -> Iterator[tuple[int, int]]:
    yield 0, 1
    rows = len(counts)
    start, size = 1, first
    while start < rows:
        wanted = min(size, cap)
        stop = min(start + wanted, rows)
        if stop < rows:
            stop = _beside_ties(counts, start, stop, cap)
        if rows - stop < wanted // 2 and rows - start <= cap:
            stop = rows  # a last group of little is none
        yield start, stop
        start, size = stop, 2 * size


def _beside_ties(counts: Counts, start: int, stop: int, cap: int) -> int:
    """`stop`, moved to where the count changes if that is near; ties wider than a group are cut anywhere."""
    size = stop - start
    descending = -counts[start:]
    low = start + int(np.searchsorted(descending, -counts[stop], side="left"))
    high = start + int(np.searchsorted(descending, -counts[stop], side="right"))
    if low - start >= size // 2 and low > start:
        return low
    return high if high - start <= min(size + size // 2, cap) else stop
