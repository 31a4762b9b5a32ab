"""Intervals over seeds and over rows, against the textbook, scikit-learn and a bootstrap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from autoembed.statistics import auc_standard_error, mean_interval, paired_auc_difference, paired_interval


def two_scores(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two correlated scores, the second a little worse."""
    generator = np.random.default_rng(seed)
    labels = generator.random(rows) < 0.3
    first = labels + generator.normal(size=rows)
    return labels.astype(np.float32), first, first + 0.4 * generator.normal(size=rows)


def test_three_seeds_use_the_t_quantile_of_the_tables():
    interval = mean_interval([1.0, 2.0, 3.0])
    # two degrees of freedom have a closed quantile: t = (2 p - 1) / sqrt(2 p (1 - p)) = 4.3027 at p = .975
    half = 0.95 / np.sqrt(2 * 0.975 * 0.025) / np.sqrt(3)
    assert interval.mean == 2.0 and interval.count == 3
    assert interval.low == pytest.approx(2 - half, rel=1e-8)  # the library's quantile
    assert interval.high == pytest.approx(2 + half, rel=1e-8)


def test_one_value_has_a_mean_and_no_interval():
    interval = mean_interval([0.7])
    assert (interval.mean, interval.low, interval.high, interval.count) == (0.7, None, None, 1)
    with pytest.raises(ValueError, match="at least one value"):
        mean_interval([])


def test_a_t_interval_covers_the_true_mean_at_its_level():
    generator = np.random.default_rng(5)
    intervals = [mean_interval(list(generator.normal(size=3))) for _ in range(2000)]
    covered = np.mean([i.low <= 0 <= i.high for i in intervals])
    assert abs(covered - 0.95) < 0.02  # four standard errors of a share of 0.95 in 2000


def test_pairing_removes_what_the_pairs_share():
    shared = [0.70, 0.75, 0.80]
    interval = paired_interval([s + 0.001 for s in shared], shared)
    assert interval.mean == pytest.approx(0.001) and interval.high - interval.low < 1e-9
    with pytest.raises(ValueError, match="equal counts, got 2 and 1"):
        paired_interval([1.0, 2.0], [1.0])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=4, max_size=60))
def test_auc_equals_scikit_learn_with_ties(rows):
    labels, scores = map(np.array, zip(*rows, strict=True))
    if min(labels.sum(), (~labels).sum()) < 2:
        with pytest.raises(ValueError, match="at least two rows of each class"):
            auc_standard_error(labels, scores)
        return
    auc, error = auc_standard_error(labels, scores)
    assert auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert error >= 0


def test_standard_error_equals_the_plain_double_loop_of_delong():
    labels, scores, _ = two_scores(60, seed=1)
    scores = np.round(scores, 1)  # ties
    positives, negatives = scores[labels == 1], scores[labels == 0]
    wins = (positives[:, None] > negatives) + 0.5 * (positives[:, None] == negatives)
    variance = wins.mean(1).var(ddof=1) / len(positives) + wins.mean(0).var(ddof=1) / len(negatives)
    assert auc_standard_error(labels, scores)[1] == pytest.approx(np.sqrt(variance), rel=1e-12)


def test_standard_errors_agree_with_a_poisson_bootstrap():
    labels, first, second = two_scores(2000, seed=2)
    generator = np.random.default_rng(3)
    draws = []
    for _ in range(400):
        weights = generator.poisson(1.0, size=len(labels))
        draws.append([roc_auc_score(labels, s, sample_weight=weights) for s in (first, second)])
    single, difference = np.std(draws, axis=0, ddof=1), np.std(np.diff(draws, axis=1), ddof=1)
    # a bootstrap of 400 draws knows a standard error to about 1 / sqrt(800) = 3.5 %; 4 of them
    assert auc_standard_error(labels, first)[1] == pytest.approx(single[0], rel=0.14)
    assert auc_standard_error(labels, second)[1] == pytest.approx(single[1], rel=0.14)
    assert paired_auc_difference(labels, first, second).standard_error == pytest.approx(difference, rel=0.14)


def test_a_paired_interval_is_narrower_than_two_independent_ones():
    labels, first, second = two_scores(2000, seed=4)
    paired = paired_auc_difference(labels, first, second)
    independent = np.hypot(auc_standard_error(labels, first)[1], auc_standard_error(labels, second)[1])
    assert paired.difference == pytest.approx(roc_auc_score(labels, first) - roc_auc_score(labels, second))
    assert paired.low < paired.difference < paired.high
    assert paired.standard_error < 0.5 * independent


def test_equal_scores_differ_by_exactly_nothing():
    labels, first, _ = two_scores(300, seed=6)
    paired = paired_auc_difference(labels, first, 3 * first + 1)  # AUC reads ranks only
    assert (paired.difference, paired.standard_error, paired.low, paired.high) == (0, 0, 0, 0)


def test_labels_of_another_length_are_refused():
    with pytest.raises(ValueError, match="one value per row"):
        auc_standard_error([0, 1, 1], [0.1, 0.2])


def test_scores_that_are_nan_and_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 8 scores are NaN: the model diverged"):
        paired_auc_difference([0, 1, 1, 0], [1.0, 2.0, 3.0, 4.0], [1.0, float("nan"), 3.0, 4.0])
    for label in (2, 0.5, float("nan")):
        with pytest.raises(ValueError, match="labels must be 0 or 1"):
            auc_standard_error([0, label, 1, 1, 0], [1, 2, 3, 4, 5])
