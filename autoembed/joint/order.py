"""In which order rows stand before they are cut into groups: by look-ups, coarsely, then by what they hold.

A group is stored in one way, with one step: its rows should be worth alike. Frequency alone does not say so.
Where ids are drawn as negatives, or where a count is small, rows of equal counts hold very different amounts,
and a group of them is as fine as its best rows need. What a row holds is, to second order, what the loss
would rise by if it read its field's row 0 instead (prices.py),

    e_r = n_r d_r^T H d_r,      d_r = w_r - w_0

with n_r its look-ups in train and H the field's mean of p (1 - p) J J^T over look-ups. Sums of a row's own
gradients are left out: they are of few examples, and sorting by them would pick their noise.
Behind the most frequent rows, whose groups are small and stay as they are, rows are sorted by classes of n_r,
a factor of four wide, and within a class by e_r: rows of a group then have both like sensitivities, on which
the best step depends, and like sizes.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autoembed.data.row_order import RowOrder
from autoembed.joint.sensitivity import Sensitivity
from autoembed.stats import Stats

HEAD = 256  # rows of a field, the most frequent, that stay by frequency
CLASS = 2.0  # log2 of the factor in look-ups between two classes
_TOGETHER = 1 << 18  # rows that are worked out at once


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
        classes = np.floor(np.log2(counts.clip(min=1.0)) / CLASS)
        classes[:HEAD], held[:HEAD] = np.inf, 0.0
        order = np.lexsort((-held, -classes))
        found.append(np.concatenate([[0], 1 + order]).astype(np.int32))
    return RowOrder(tuple(found))


def _held(rows: Tensor, gram: Tensor) -> npt.NDArray[np.float64]:
    """(R - 1,): d^T H d of every row behind row 0, up to a factor."""
    scaled = (gram / gram.trace().clamp(min=1e-30)).to(rows)
    parts = [rows.new_zeros(0)]
    for start in range(1, len(rows), _TOGETHER):
        apart = rows[start : start + _TOGETHER] - rows[0]
        parts.append(((apart @ scaled) * apart).sum(1))
    held: npt.NDArray[np.float64] = torch.cat(parts).double().cpu().numpy()
    return held
