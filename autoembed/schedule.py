"""When to cut the learning rate and when to stop, from one validation after each epoch."""

from dataclasses import dataclass, field

from autoembed.metrics import Metrics


@dataclass
class Plateau:
    """Follows one metric, "auc" or "logloss".

    After `cut_patience` epochs without a new best the rate is multiplied by `cut_factor`; after
    `patience` such epochs training stops. Epochs count from the last best one for stopping, and from
    the last best one or cut for cutting.
    """

    metric: str
    patience: int
    cut_patience: int
    cut_factor: float
    rate: float = 1.0
    best: Metrics | None = None
    best_epoch: int = 0
    _since_best: int = field(default=0, init=False)
    _since_cut: int = field(default=0, init=False)

    def saw(self, epoch: int, valid: Metrics) -> bool:
        """Take the validation after `epoch`, counted from 1; whether it is the best so far."""
        if self.best is None or valid.better_than(self.best, self.metric):
            self.best, self.best_epoch = valid, epoch
            self._since_best = self._since_cut = 0
            return True
        self._since_best += 1
        self._since_cut += 1
        if self._since_cut >= self.cut_patience:
            self.rate *= self.cut_factor
            self._since_cut = 0
        return False

    @property
    def exhausted(self) -> bool:
        return self._since_best >= self.patience
