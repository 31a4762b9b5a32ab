"""Rows drawn to stand for a range: one from each of as many equal parts."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.joint.samples import drawn


@given(st.integers(0, 50), st.integers(0, 300), st.integers(1, 40), st.integers(0, 2**32))
@settings(deadline=None)
def test_every_equal_part_has_one_row(start: int, rows: int, count: int, seed: int) -> None:
    found = drawn(start, start + rows, count, torch.Generator().manual_seed(seed))
    assert found.dtype == torch.int64
    if rows <= count:
        assert found.tolist() == list(range(start, start + rows))
        return
    parts = [(start + part * rows // count, start + (part + 1) * rows // count) for part in range(count)]
    assert all(first <= row < end for row, (first, end) in zip(found.tolist(), parts, strict=True))


def test_every_row_of_a_part_is_drawn_as_often() -> None:
    generator = torch.Generator().manual_seed(1)
    counts = torch.bincount(torch.cat([drawn(0, 100, 20, generator) for _ in range(2000)]), minlength=100)
    # 400 of each are expected, with a deviation of 18
    assert (counts - 400).abs().max() < 90


def test_a_range_of_billions_of_rows_is_no_work() -> None:
    found = drawn(7, 7 + 2**40, 256, torch.Generator().manual_seed(1))
    assert len(found) == 256 and (found.diff() > 0).all()
    assert int(found[0]) >= 7 and int(found[-1]) < 7 + 2**40
