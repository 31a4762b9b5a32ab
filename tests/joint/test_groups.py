import numpy as np
import pytest

from autoembed.joint.groups import groups_of
from autoembed.stats import FieldStats, Stats


def test_rows_in_no_order_of_frequency_are_refused_and_their_field_named() -> None:
    counts = np.array([0, 3, 9, 1])
    fields = (FieldStats("item", np.sort(counts)[::-1]), FieldStats("user", counts, ranked=False))
    with pytest.raises(ValueError, match="the joint search needs rows in order of frequency; field 'user'"):
        groups_of(Stats(fields))
    assert groups_of(Stats(fields[:1]))
