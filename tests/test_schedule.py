"""Learning-rate cuts and early stopping on made-up validation curves."""

from autoembed.metrics import Metrics
from autoembed.schedule import Plateau


def _follow(schedule: Plateau, curve: list[float]) -> list[tuple[bool, float, bool]]:
    """(best so far, rate for the next epoch, exhausted) after every epoch."""
    return [
        (schedule.saw(epoch, Metrics(auc, 0.5)), round(schedule.rate, 6), schedule.exhausted)
        for epoch, auc in enumerate(curve, start=1)
    ]


def test_one_miss_cuts_the_rate_and_a_second_stops() -> None:
    schedule = Plateau("auc", patience=2, cut_patience=1, cut_factor=0.1)
    assert _follow(schedule, [0.6, 0.7, 0.65, 0.66]) == [
        (True, 1.0, False),
        (True, 1.0, False),
        (False, 0.1, False),
        (False, 0.01, True),
    ]
    assert schedule.best_epoch == 2


def test_a_new_best_after_a_cut_starts_counting_afresh_at_the_lower_rate() -> None:
    schedule = Plateau("auc", patience=2, cut_patience=1, cut_factor=0.1)
    assert _follow(schedule, [0.7, 0.6, 0.8, 0.8]) == [
        (True, 1.0, False),
        (False, 0.1, False),
        (True, 0.1, False),
        (False, 0.01, False),
    ]


def test_equal_is_not_better() -> None:
    schedule = Plateau("logloss", patience=1, cut_patience=1, cut_factor=0.5)
    assert schedule.saw(1, Metrics(0.5, 0.4))
    assert not schedule.saw(2, Metrics(0.9, 0.4))
    assert schedule.exhausted
