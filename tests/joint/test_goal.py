"""Steps of a search for the smallest model within a drop: none where it is safe, all where it is decided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoembed.joint.goal import PORTION, REACH, SURE, portion, rest

ALLOWED = 5e-4
ABOVE = 1.01 * ALLOWED


def unasked() -> float:
    raise AssertionError("what the next budget loses does not matter here")


@pytest.mark.parametrize("drop", [-0.01, 0.0, SURE * ALLOWED])
def test_what_is_surely_within_takes_no_step(drop):
    assert portion(drop, ALLOWED, 500, 1000) == 0


def test_others_take_a_portion_or_what_is_left():
    assert portion(SURE * ABOVE, ALLOWED, 500, 1000) == round(PORTION * 1000)
    assert portion(1.0, ALLOWED, 40, 1000) == 40
    assert portion(1.0, ALLOWED, 0, 1000) == 0


def test_what_a_portion_does_not_help_gets_no_more():
    assert rest(ABOVE, ABOVE, ALLOWED, unasked, 700) == 0
    assert rest(0.0, 0.0, ALLOWED, unasked, 700) == 0


def test_what_a_portion_does_not_bring_within_gets_all():
    assert rest(ABOVE, 2 * ABOVE, ALLOWED, unasked, 700) == 700
    assert rest(ABOVE, 2 * ABOVE, ALLOWED, unasked, 0) == 0


@pytest.mark.parametrize(("following", "steps"), [(None, 700), (REACH * ABOVE, 700), (REACH * ALLOWED, 0)])
def test_what_is_within_gets_all_only_where_the_next_is_out_of_reach(following, steps):
    assert rest(ALLOWED, ABOVE, ALLOWED, lambda: following, 700) == steps


@given(
    drops=st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0)),
    allowed=st.floats(1e-6, 0.5),
    following=st.none() | st.floats(-1.0, 1.0),
    left=st.integers(0, 10_000),
    total=st.integers(0, 10_000),
)
def test_no_more_than_what_is_left(drops, allowed, following, left, total):
    few = portion(drops[0], allowed, left, total)
    many = rest(drops[1], drops[0], allowed, lambda: following, left - few)
    assert few >= 0 and many >= 0 and few + many <= left


def test_where_no_step_is_left_the_next_plan_is_not_looked_at():
    """Which costs a pricing of all rows."""
    assert rest(ALLOWED, ABOVE, ALLOWED, unasked, 0) == 0
