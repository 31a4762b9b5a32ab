"""Intervals over seeds (Student t) and over test rows (DeLong): two different sources of noise.

Seeds: the same candidate trained again. Rows: another sample of test examples for the same model.
DeLong covers rows only; a claim about a method needs the spread over seeds as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

LEVEL = 0.95

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean of `count` values and the bounds of its confidence interval; no bounds for one value."""

    mean: float
    low: float | None
    high: float | None
    count: int


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and t-interval of independent repeats.

        mean +- t(1 - (1 - level) / 2, n - 1) * s / sqrt(n)

    One value has no interval. Raises ValueError for none.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.size == 0:
        raise ValueError("a mean needs at least one value, got none")
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, None, None, 1)
    quantile = float(stdtrit(sample.size - 1, 0.5 + level / 2))
    half = quantile * float(sample.std(ddof=1)) / float(np.sqrt(sample.size))
    return Interval(mean, mean - half, mean + half, int(sample.size))


def paired_interval(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Interval:
    """`mean_interval` of first - second, value by value. Raises ValueError for unequal lengths.

    What both share, as the split and the order of batches of one seed, cancels.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values need equal counts, got {len(first)} and {len(second)}")
    return mean_interval([a - b for a, b in zip(first, second, strict=True)], level)


@dataclass(frozen=True)
class AucDifference:
    """The AUCs of two scores of the same rows; `standard_error` and bounds of first - second."""

    first_auc: float
    second_auc: float
    difference: float
    standard_error: float
    low: float
    high: float


def auc_standard_error(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[float, float]:
    """AUC of `scores` (N,) for 0/1 `labels` (N,), and its standard error over rows (DeLong).

    Raises ValueError with fewer than two rows of a class, scores that are NaN, labels other than 0 and 1.
    """
    aucs, covariance = _delong(labels, np.asarray(scores, dtype=np.float64)[None])
    return float(aucs[0]), float(np.sqrt(covariance[0, 0]))


def paired_auc_difference(
    labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, level: float = LEVEL
) -> AucDifference:
    """AUC of `first` minus AUC of `second`, both (N,) scores of the same rows, with a normal interval.

    Pairing makes the interval far narrower than two independent ones. Raises ValueError as
    `auc_standard_error`.
    """
    scores = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])
    aucs, covariance = _delong(labels, scores)
    difference = float(aucs[0] - aucs[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0)))
    half = float(ndtri(0.5 + level / 2)) * error
    return AucDifference(
        float(aucs[0]), float(aucs[1]), difference, error, difference - half, difference + half
    )


def _delong(labels: npt.ArrayLike, scores: Values) -> tuple[Values, Values]:
    """AUCs (K,) of `scores` (K, N), and their covariance (K, K).

    Sun and Xu, "Fast implementation of DeLong's algorithm", IEEE Signal Processing Letters 21 (2014):
    with m positives, n negatives and midranks Z over all rows, X over positives, Y over negatives,

        AUC = (sum of Z over positives - m (m + 1) / 2) / (m n)
        V10 = (Z over positives - X) / n,   V01 = 1 - (Z over negatives - Y) / m
        covariance = cov(V10) / m + cov(V01) / n
    """
    known = np.asarray(labels)
    if not np.isin(known, (0, 1)).all():
        raise ValueError("labels must be 0 or 1 in every row")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN: the model diverged")
    positive = known.astype(bool)
    if positive.shape != scores.shape[1:]:
        raise ValueError(f"labels {positive.shape} and scores {scores.shape[1:]} must have one value per row")
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        raise ValueError(f"DeLong needs at least two rows of each class, got {m} positive and {n} negative")
    above, below = np.empty((len(scores), m)), np.empty((len(scores), n))
    aucs = np.empty(len(scores))
    for k, row in enumerate(scores):
        ranks = _midranks(row)
        aucs[k] = (ranks[positive].sum() - m * (m + 1) / 2) / (m * n)
        above[k] = (ranks[positive] - _midranks(row[positive])) / n
        below[k] = 1 - (ranks[~positive] - _midranks(row[~positive])) / m
    return aucs, np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n


def _midranks(values: Values) -> Values:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Values = (last - (counts - 1) / 2)[inverse]
    return ranks
