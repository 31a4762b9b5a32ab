"""Which settings are taken: by what trials measured, with stand-ins that measure as they are told."""

import pytest

from autoembed.joint.config import JointConfig
from autoembed.joint.settle import (
    MARGIN,
    TRIED,
    Settings,
    Tuned,
    settle,
    steps_of_trials,
    usual,
)
from autoembed.metrics import Metrics

PLAIN, LITTLE, MUCH = (Settings(teacher, pytest.approx(0.3 * faster)) for teacher, faster in TRIED)


class Trials:
    """Measures what it is told by the teacher's weight; None where training is to diverge."""

    def __init__(self, aucs: dict[float, float | None]) -> None:
        self.aucs = aucs
        self.asked: list[float] = []

    def __call__(self, settings: Settings) -> Tuned | None:
        self.asked.append(settings.teacher)
        auc = self.aucs[settings.teacher]
        return None if auc is None else Tuned(None, None, None, Metrics(auc, 1.0 - auc))  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["auc", "logloss"])
@pytest.mark.parametrize(
    ("aucs", "found", "auc"),
    [
        ({0.9: 0.81, 0.65: 0.82}, MUCH, 0.82),
        ({0.9: 0.82, 0.65: 0.81}, LITTLE, 0.82),
        ({0.9: 0.81, 0.65: None}, LITTLE, 0.81),
        ({0.9: 0.80 + MARGIN / 2, 0.65: 0.7}, PLAIN, None),
        ({0.9: 0.80 - MARGIN / 2, 0.65: 0.81}, MUCH, 0.81),
        ({0.9: 0.80 - MARGIN / 2, 0.65: 0.79}, PLAIN, None),
    ],
)
def test_labels_have_to_gain_where_no_step_is_needed(metric, aucs, found, auc):
    trials = Trials(aucs)
    settings, tuned, told = settle(trials, Metrics(0.80, 0.20), True, 0.3, metric)
    assert settings == found and (None if tuned is None else tuned.valid.auc) == auc
    assert trials.asked == [0.9, 0.65] == [t.teacher for t in told]


@pytest.mark.parametrize("little", [0.79, None])
def test_many_labels_are_not_tried_where_few_do_harm(little):
    trials = Trials({0.9: little, 0.65: 0.9})
    settings, tuned, told = settle(trials, Metrics(0.80, 0.20), True, 0.3, "auc")
    assert settings == PLAIN and tuned is None
    assert [(t.teacher, t.valid and t.valid.auc) for t in told] == [(0.9, little)]
    assert trials.asked == [0.9]


@pytest.mark.parametrize(
    ("aucs", "found", "auc"),
    [
        ({1.0: 0.75, 0.9: 0.76, 0.65: 0.77}, MUCH, 0.77),
        ({1.0: 0.75, 0.9: 0.75 + MARGIN / 2, 0.65: 0.7}, PLAIN, 0.75),
        ({1.0: None, 0.9: 0.71, 0.65: 0.72}, MUCH, 0.72),
    ],
)
def test_where_steps_are_needed_labels_have_to_be_better_than_none(aucs, found, auc):
    trials = Trials(aucs)
    settings, tuned, told = settle(trials, Metrics(0.70, 0.30), False, 0.3, "auc")
    assert settings == found and (None if tuned is None else tuned.valid.auc) == auc
    assert trials.asked == [1.0, 0.9, 0.65] == [t.teacher for t in told]


@pytest.mark.parametrize(
    ("aucs", "auc", "asked"),
    [
        ({1.0: 0.75, 0.9: None}, 0.75, [1.0, 0.9]),
        ({1.0: 0.75, 0.9: 0.74}, 0.75, [1.0, 0.9]),
        ({1.0: None, 0.9: None}, None, [1.0, 0.9]),
        ({1.0: 0.6, 0.9: 0.61}, 0.6, [1.0, 0.9]),  # no better than no step at all
    ],
)
def test_without_labels_it_stays_where_these_do_harm(aucs, auc, asked):
    trials = Trials(aucs)
    settings, tuned, told = settle(trials, Metrics(0.70, 0.30), False, 0.3, "auc")
    assert settings == PLAIN and (None if tuned is None else tuned.valid.auc) == auc
    assert trials.asked == asked == [t.teacher for t in told]


def test_trials_take_at_most_half_of_all_steps_or_there_are_none():
    assert steps_of_trials(1000, 1500) == 120
    assert steps_of_trials(1000, 720) == 120
    assert steps_of_trials(1000, 719) == 0
    assert steps_of_trials(0, 0) == 0


def test_usual_settings_are_the_users():
    assert usual(JointConfig()) == Settings(1.0, 0.3)
    assert usual(JointConfig(teacher=0.5, rate=0.2)) == Settings(0.5, 0.2)
