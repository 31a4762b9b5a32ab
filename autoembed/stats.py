"""What the train split says about each field: how often every row is looked up, and frequency groups."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autoembed.data.prepared import PreparedData
from autoembed.data.row_order import RowOrder

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FieldStats:
    """One field. `counts` (R,) are look-ups in the train split by row.

    Row 0 is the out-of-vocabulary row. Rows are `ranked` where counts[1:] never increase, or where they stand
    in another order that was found for them (`Stats.reordered`); those of a field without a vocabulary are
    not. `bag` fields hold several ids.
    """

    name: str
    counts: Counts
    bag: bool = False
    ranked: bool = True

    @property
    def rows(self) -> int:
        return len(self.counts)

    @property
    def ranked_counts(self) -> Counts:
        """`counts` as statistics read them: row 0, then from the most frequent row down. Of a field that is
        not ranked, rows without a look-up are left out: they may stand for no id."""
        if self.ranked and not (self.counts[2:] > self.counts[1:-1]).any():
            return self.counts
        descending = np.sort(self.counts[1:])[::-1]
        return np.concatenate([self.counts[:1], descending if self.ranked else descending[descending > 0]])


@dataclass(frozen=True)
class Stats:
    """All fields, in the data's order. A global row is the field's first row plus the row."""

    fields: tuple[FieldStats, ...]

    @property
    def rows(self) -> int:
        return sum(field.rows for field in self.fields)

    @property
    def first_rows(self) -> tuple[int, ...]:
        """Per field, the global row of its row 0."""
        ends = np.cumsum([0] + [field.rows for field in self.fields])
        return tuple(int(end) for end in ends[:-1])

    def reordered(self, order: RowOrder) -> "Stats":
        """The same statistics of rows in another order."""
        return Stats(
            tuple(
                replace(field, counts=field.counts[rows])
                for field, rows in zip(self.fields, order.rows, strict=True)
            )
        )


def frequency_groups(counts: Counts, *, growth: int = 4, access_share: float = 0.005) -> tuple[int, ...]:
    """Boundaries of tie-aware frequency groups of one field (methods.md 10.1).

    Row 0 is a group of its own. From row 1 on, boundaries stand at geometric ranks (1, growth,
    growth^2, ...), moved to the end of a run of equal counts so that ties are never split; a group
    with less than `access_share` of the look-ups joins the next, the tail stands as it is.
    Returns (0, 1, ..., R): group g is rows [boundaries[g], boundaries[g + 1]).
    """
    rows = len(counts)
    boundaries = [0, 1] if rows > 1 else [0]
    least = access_share * counts.sum()
    rank = growth
    while rows > 1 and rank < rows - 1:
        row = min(1 + rank, rows)
        tie_end = row + int(np.searchsorted(-counts[row:], -counts[row - 1], side="right"))
        if tie_end < rows and counts[boundaries[-1] : tie_end].sum() >= least:
            boundaries.append(tie_end)
        rank = max(rank * growth, tie_end)
    return (*boundaries, rows)


def stats_of(data: PreparedData) -> Stats:
    """The statistics of prepared data; `prepare` counted them in the train split."""
    return Stats(
        tuple(
            FieldStats(field.name, data.counts(f), field.bag, ranked=field.hash_rows is None)
            for f, field in enumerate(data.fields)
        )
    )


def head_share(counts: Counts, share: float) -> float:
    """The share of look-ups that the most frequent `share` of the ids take, at least one id; 0 of none."""
    lookups = int(counts.sum())
    ids = max(1, math.ceil(share * (len(counts) - 1)))
    return float(counts[1 : 1 + ids].sum() / lookups) if lookups else 0.0
