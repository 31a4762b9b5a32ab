"""In which order rows stand before they are cut into groups: by frequency, coarsely, then by what they hold.

A group is stored in one way, with one step: its rows should be worth alike. Frequency alone does not say so.
Where ids are drawn as negatives, or where a count is small, rows of equal counts hold very different amounts,
and a group of them is as fine as its best rows need. What a row holds is, to second order, what the loss
would rise by if it read its field's row 0 instead (prices.py),

    e_r = n_r d_r^T H d_r,      d_r = w_r - w_0

with n_r its look-ups in train and H the field's mean of p (1 - p) J J^T over look-ups. Sums of a row's own
gradients are left out: they are of few examples, and sorting by them would pick their noise.
Rows are sorted by e_r within windows of their ranks by frequency, each four times as wide as the one before,
so that rows of a group have like sizes and, where frequency is popularity, like sensitivities, on which the
best step depends. Windows that end where groups do were tried, too, and are no better.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoembed.data.row_order import RowOrder
from autoembed.joint.sensitivity import Sensitivity
from autoembed.stats import Stats

FIRST = 8  # rows of the first window
WIDER = 4  # times the window before
_TOGETHER = 1 << 13  # rows that are worked out at once: few stay in the cache


def learned_order(rows: Tensor, sensitivity: Sensitivity, stats: Stats) -> RowOrder:
    """The order of all fields' rows (R, D), at which `sensitivity` was measured; ties stay by frequency.

    Rows of a field that is not ranked stay where they are.
    """
    found = []
    for number, (field, first) in enumerate(zip(stats.fields, stats.first_rows, strict=True)):
        if not field.ranked:
            found.append(np.arange(field.rows, dtype=np.int32))
            continue
        counts = np.asarray(field.counts[1:], dtype=np.float64)
        held = counts * _held(rows[first : first + field.rows], sensitivity.field_gram[number])
        order, start = [np.zeros(1, dtype=np.int64)], 1
        for part in np.split(held, _window_ends(len(held))):
            order.append(start + _falling(part))
            start += len(part)
        found.append(np.concatenate(order).astype(np.int32))
    return RowOrder(tuple(found))


def _falling(held: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Places from the largest number, 0 or more, to the least, in float32; ties in their order.

    Numbers and places are sorted as one integer, which takes a seventh of a stable sort of places.
    """
    # as bits, numbers of float32 from 0 on are ordered as they are
    bits = np.maximum(held, 0.0).astype(np.float32).view(np.int32).astype(np.int64)
    both = np.sort((np.iinfo(np.int32).max - bits) << 32 | np.arange(len(held), dtype=np.int64))
    places: npt.NDArray[np.int64] = both & 0xFFFF_FFFF
    return places


def _window_ends(rows: int) -> list[int]:
    """Where each window but the last ends, of ranks 0 to rows - 1."""
    ends: list[int] = []
    width = FIRST
    while sum(ends[-1:]) + width < rows:
        ends.append(sum(ends[-1:]) + width)
        width *= WIDER
    return ends


def _held(rows: Tensor, gram: Tensor) -> npt.NDArray[np.float64]:
    """(R - 1,): d^T H d of every row behind row 0, up to a factor."""
    scaled = (gram / gram.trace().clamp(min=1e-30)).to(rows)
    parts = [rows.new_zeros(0)]
    for start in range(1, len(rows), _TOGETHER):
        apart = rows[start : start + _TOGETHER] - rows[0]
        parts.append(((apart @ scaled) * apart).sum(1))
    held: npt.NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return held
