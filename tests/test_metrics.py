"""AUC and log loss against scikit-learn and against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from autoembed.metrics import Metrics, auc, logloss, measure

EXAMPLES = st.lists(st.tuples(st.integers(0, 1), st.integers(-6, 6)), min_size=2, max_size=60)


@settings(deadline=None, max_examples=50)
@given(EXAMPLES)
def test_auc_equals_scikit_learn_with_ties(examples: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in examples], dtype=np.float32)
    scores = np.array([score / 3 for _, score in examples], dtype=np.float32)
    if labels.min() == labels.max():
        assert np.isnan(auc(labels, scores))
    else:
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(EXAMPLES)
def test_logloss_equals_scikit_learn(examples: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in examples], dtype=np.float32)
    logits = np.array([score for _, score in examples], dtype=np.float32)
    expected = log_loss(labels, 1 / (1 + np.exp(-logits.astype(np.float64))), labels=[0, 1])
    assert logloss(labels, logits) == pytest.approx(expected, abs=1e-9)


def test_auc_counts_pairs_by_hand() -> None:
    # positives 0.9 and 0.4 against negatives 0.4 and 0.1: three wins and one tie of four pairs
    assert auc(np.array([1, 0, 1, 0.0]), np.array([0.9, 0.4, 0.4, 0.1])) == 3.5 / 4


def test_a_sure_and_wrong_prediction_costs_its_logit_and_never_vanishes() -> None:
    labels = np.array([0.0, 1.0])
    assert logloss(labels, np.array([40.0, -40.0])) == pytest.approx(40.0)
    assert logloss(labels, np.array([np.inf, -np.inf])) == pytest.approx(100.0)
    assert logloss(labels, np.array([-np.inf, np.inf])) == pytest.approx(0.0, abs=1e-30)


def test_nan_predictions_are_refused_not_averaged() -> None:
    with pytest.raises(ValueError, match="1 of 2 predictions are NaN"):
        measure(np.array([0.0, 1.0]), np.array([0.1, np.nan]))


def test_a_better_metric_is_a_higher_auc_and_a_lower_logloss() -> None:
    first, second = Metrics(0.8, 0.5), Metrics(0.7, 0.4)
    assert first.better_than(second, "auc") and not second.better_than(first, "auc")
    assert second.better_than(first, "logloss") and not first.better_than(second, "logloss")
    assert not first.better_than(first, "auc")
