"""What budgets get of the steps: sums, where most goes, what is expected of time."""

import pytest

from autoembed.joint.config import JointConfig
from autoembed.joint.shares import expected_trainings, next_steps, shares, steps_of


def test_steps_follow_the_shares_and_sum_to_all():
    ratios = [2.0, 4.0, 8.0, 16.0, 64.0, 512.0]
    for total in (0, 1, 7, 1000):
        steps = steps_of(ratios, total)
        assert sum(steps) == total and min(steps) >= 0
        assert steps == pytest.approx([total * share for share in shares(ratios)], abs=1.5)


def test_what_trials_took_is_made_up_for_by_budgets_that_need_none():
    ratios, total = [2.0, 4.0, 8.0, 16.0, 64.0, 512.0], 1000
    usual = steps_of(ratios, total)
    taken: list[int] = []
    for own in usual:  # where all take theirs, nothing changes
        assert next_steps(ratios, total, taken) == own
        taken.append(own)
    trials = [usual[0] + 200]
    shorter = [next_steps(ratios, total, [*trials, *usual[1:number]]) for number in range(1, 6)]
    assert all(steps < own for steps, own in zip(shorter, usual[1:], strict=True))
    made_up = next_steps(ratios, total, [*trials, 0, 0])
    assert next_steps(ratios, total, [*trials, *usual[1:3]]) < made_up <= usual[3]
    assert next_steps(ratios, total, [0] * 5) == usual[5], "no more than that, however much is left"
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
