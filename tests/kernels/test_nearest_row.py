"""Nearest centres in C++ and in torch, against one centre at a time in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native
from torch import Tensor

from autoembed_kernels.nearest_row import nearest_row, reference, torch_nearest_row


@given(
    st.sampled_from([0, 1, 15, 16, 17, 32, 33, 70]),
    st.sampled_from([1, 2, 3, 4, 5, 16, 43]),
    st.sampled_from([1, 3, 8, 16, 17]),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_the_nearest_centre_is_that_of_one_at_a_time(count: int, centres: int, dim: int, seed: int) -> None:
    native()
    generator = torch.Generator().manual_seed(seed)
    points, rows = (torch.randn(n, dim, generator=generator) for n in (count, centres))
    far = (points.double() - rows.double()[reference(points, rows)]).square().sum(1).tolist()
    in_torch, away = torch_nearest_row(points, rows)
    assert away.dtype == torch.float32 and away.tolist() == pytest.approx(far, rel=1e-4, abs=1e-5)
    for found in (nearest_row(points, rows), in_torch):
        assert found.dtype == torch.int64
        chosen = (points.double() - rows.double()[found]).square().sum(1)
        assert chosen.tolist() == pytest.approx(far, rel=1e-4, abs=1e-5)


def in_torch(points: Tensor, centres: Tensor) -> Tensor:
    codes, far = torch_nearest_row(points, centres)
    assert torch.equal(far, (points - centres[codes]).square().sum(1))
    return codes


FIND = pytest.mark.parametrize("find", [nearest_row, in_torch])


@FIND
def test_equal_centres_give_the_first(find) -> None:
    native()
    rows = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    assert find(rows, torch.cat([rows, rows])).tolist() == list(range(50))


def test_rows_that_are_no_block_of_their_own_are_read_right() -> None:
    wide = torch.randn(30, 24, generator=torch.Generator().manual_seed(2))
    codes = nearest_row(wide[:, :8], wide[:20, :8])
    assert codes[:20].tolist() == list(range(20))


def test_threads_do_not_change_the_answer() -> None:
    points = torch.randn(1001, 8, generator=torch.Generator().manual_seed(3))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = nearest_row(points, points[:33])
        torch.set_num_threads(3)
        together = nearest_row(points, points[:33])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)


@pytest.mark.parametrize("shapes", [((3, 4), (2, 5)), ((3, 4), (0, 4)), ((4,), (2, 4))])
def test_shapes_that_do_not_fit_are_refused(shapes) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        nearest_row(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_centres_far_from_zero_are_told_apart() -> None:
    """Products alone would cancel: squares of 10^6 leave float32 no difference below 0.1."""
    rows = torch.randn(40, 16, generator=torch.Generator().manual_seed(4)) + 1000.0
    assert nearest_row(rows, rows).tolist() == list(range(40))


def test_points_that_hold_no_numbers_get_a_code_in_range() -> None:
    points = torch.tensor([[float("nan"), 0.0], [float("inf"), 0.0], [1.0, 1.0]])
    codes = nearest_row(points, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    assert codes.min() >= 0 and codes.max() < 2 and codes[2] == 1


@FIND
@pytest.mark.parametrize("count", [48, 50])  # C++ compares four centres at a time
def test_equal_centres_give_the_first_wherever_they_stand(find, count: int) -> None:
    native()
    rows = torch.randn(count, 16, generator=torch.Generator().manual_seed(1))
    assert find(rows, torch.cat([rows, rows, rows])).tolist() == list(range(count))


@FIND
def test_centres_very_far_from_zero_are_told_apart(find) -> None:
    """At 1,000 squares still leave float32 enough to tell rows that are 5 apart."""
    native()
    rows = torch.randn(40, 16, generator=torch.Generator().manual_seed(4)) + 30_000.0
    assert find(rows, rows).tolist() == list(range(40))
