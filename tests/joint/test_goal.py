"""Steps of a search for the smallest model within a drop: none where it is safe, all where it is decided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoembed.joint.goal import PORTION, REACH, SURE, steps_towards

ALLOWED = 5e-4


def unasked() -> float:
    raise AssertionError("what the next budget loses does not matter here")


@pytest.mark.parametrize("drop", [-0.01, 0.0, SURE * ALLOWED])
def test_what_is_surely_within_takes_no_step_and_is_not_looked_beyond(drop):
    assert steps_towards(drop, ALLOWED, unasked, 500, 1000) == 0


def test_where_nothing_is_left_nothing_is_looked_at():
    assert steps_towards(1.0, ALLOWED, unasked, 0, 1000) == 0


@pytest.mark.parametrize("following", [None, REACH * ALLOWED * 1.01])
def test_the_last_budget_within_reach_takes_all_that_is_left(following):
    assert steps_towards(ALLOWED, ALLOWED, lambda: following, 700, 1000) == 700


def test_a_budget_before_it_takes_a_portion():
    assert steps_towards(ALLOWED, ALLOWED, lambda: REACH * ALLOWED, 700, 1000) == round(PORTION * 1000)
    assert steps_towards(ALLOWED, ALLOWED, lambda: -0.1, 90, 1000) == 90


@given(
    drop=st.floats(-1.0, 1.0),
    allowed=st.floats(1e-6, 0.5),
    following=st.none() | st.floats(-1.0, 1.0),
    left=st.integers(0, 10_000),
    total=st.integers(0, 10_000),
)
def test_no_more_than_what_is_left(drop, allowed, following, left, total):
    assert 0 <= steps_towards(drop, allowed, lambda: following, left, total) <= left
