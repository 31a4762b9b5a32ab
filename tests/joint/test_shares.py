"""What budgets get of the steps: sums, where most goes, what is expected of time."""

import pytest

from autoembed.joint.config import JointConfig
from autoembed.joint.shares import MORE, expected_trainings, next_steps, shares, steps_of


def test_steps_follow_the_shares_and_sum_to_all():
    ratios = [2.0, 4.0, 8.0, 16.0, 64.0, 512.0]
    for total in (0, 1, 7, 1000):
        steps = steps_of(ratios, total)
        assert sum(steps) == total and min(steps) >= 0
        assert steps == pytest.approx([total * share for share in shares(ratios)], abs=1.5)


def test_steps_that_were_not_taken_are_divided_among_those_behind():
    ratios, total = [2.0, 4.0, 8.0, 16.0, 64.0, 512.0], 1000
    usual = steps_of(ratios, total)
    taken: list[int] = []
    for own in usual:  # where all take theirs, nothing changes
        assert next_steps(ratios, total, taken) == own
        taken.append(own)
    saved = [0, 0, 0]
    assert usual[3] < next_steps(ratios, total, saved) <= MORE * usual[3] + 1
    assert next_steps(ratios, total, [0] * 5) == round(MORE * usual[5]), "no more, however much is left"
    assert next_steps(ratios, total, [900, 0]) < usual[2], "trials took them"
    assert next_steps(ratios, total, [total + 5]) == 0


def test_what_points_are_expected_to_take_is_what_fine_tuning_may():
    ratios = [2.0, 4.0, 16.0, 64.0]
    for config in (JointConfig(), JointConfig(teacher=1.0), JointConfig(fine_tune=0.1)):
        expected = expected_trainings(ratios, config)
        assert sum(expected) == pytest.approx(1.2 * config.fine_tune)
        # trials are made at the first budget, where there are steps for them
        assert (expected[0] > expected[1]) == (config == JointConfig())
    assert expected_trainings(ratios, JointConfig(fine_tune=0.0)) == [0.0] * 4


def test_shares_are_largest_about_the_knee_and_sum_to_one():
    parts = shares([2, 4, 8, 16, 32, 64, 256, 512])
    assert sum(parts) == pytest.approx(1.0)
    assert parts[:5] == sorted(parts[:5])
    assert parts[4:] == sorted(parts[4:], reverse=True)
