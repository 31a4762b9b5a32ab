"""How good predictions are: area under the ROC curve and mean log loss, both in float64."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]

LOGIT_LIMIT = 100.0  # a wrong prediction this sure costs 100 nats: large enough to be seen, finite


@dataclass(frozen=True)
class Metrics:
    """Quality on one split. `auc` is NaN where all labels are equal."""

    auc: float
    logloss: float

    def better_than(self, other: "Metrics", metric: str, margin: float = 0.0) -> bool:
        """Whether `metric`, "auc" or "logloss", improves on `other` by more than `margin`."""
        if metric == "auc":
            return self.auc > other.auc + margin
        return self.logloss < other.logloss - margin


def measure(labels: Values, logits: Values) -> Metrics:
    """labels (N,) of 0 and 1, logits (N,). Raises ValueError where a logit is NaN."""
    return Metrics(auc(labels, logits), logloss(labels, logits))


def auc(labels: Values, scores: Values) -> float:
    """The chance that a positive scores above a negative; ties count half.

    (sum of the positives' mid-ranks - P (P + 1) / 2) / (P (N - P))
    """
    _refuse_nan(scores)
    order = np.argsort(scores)
    ascending = scores[order]
    starts = np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1]))[: len(scores)])
    sizes = np.diff(np.append(starts, len(scores)))
    positives_by_tie = (
        np.add.reduceat(labels[order], starts, dtype=np.float64) if len(starts) else np.zeros(0)
    )
    mid_ranks = starts + (sizes + 1) / 2  # ranks count from 1
    positives = float(positives_by_tie.sum())
    negatives = len(scores) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    rank_sum = float(positives_by_tie @ mid_ranks)
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def logloss(labels: Values, logits: Values) -> float:
    """Mean binary cross-entropy in nats: log(1 + e^z) - y z.

    Logits are clipped to +-100, where a float32 sigmoid is long saturated: infinite logits count as
    very wrong or very right and never vanish in an epsilon.
    """
    _refuse_nan(logits)
    z = np.clip(logits.astype(np.float64), -LOGIT_LIMIT, LOGIT_LIMIT)
    return float(np.mean(np.logaddexp(0.0, z) - labels * z)) if len(z) else float("nan")


def _refuse_nan(scores: Values) -> None:
    broken = int(np.isnan(scores).sum())
    if broken:
        raise ValueError(f"{broken} of {len(scores)} predictions are NaN: the model diverged")
