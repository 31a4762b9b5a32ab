"""Codebooks by splitting, in C++ and in torch, against one point at a time in float64."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from native_library import native
from torch import Tensor

from autoembed_kernels.split_codes import reference, split_codes, torch_split_codes


def drawn(count: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, dim, generator=generator) * torch.linspace(3.0, 0.3, dim)
    return points, 0.01 + torch.rand(count, generator=generator).square()


def together(codes: Tensor) -> Tensor:
    """(L, N, N): which points share a code. Of two centres on a lone point either may be the nearest."""
    return codes.unsqueeze(1) == codes.unsqueeze(2)


@given(
    st.sampled_from([40, 64, 65]),
    st.sampled_from([1, 2, 7, 8, 16, 17]),
    # codes that no round fills have centres alike, of which either may be the nearest: 0 at the end alone
    st.builds(lambda most, last: [*most, last], st.lists(st.integers(1, 3), max_size=3), st.integers(0, 3)),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=40)
def test_codes_are_those_of_one_point_at_a_time(count: int, dim: int, rounds: list[int], seed: int) -> None:
    native()
    points, shares = drawn(count, dim, seed)
    expected = torch.tensor(reference(points, shares, rounds))
    # a point between two centres to float32's rounding goes to either, and later levels part from there
    noise = 1 + 1e-5 * torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    assume(torch.equal(torch.tensor(reference(points * noise, shares, rounds)), expected))
    for find in (split_codes, torch_split_codes):
        codes = find(points, shares, rounds)
        assert codes.dtype == torch.int64 and int(codes.min()) >= 0
        assert (codes.amax(1) < 2 ** torch.arange(1, len(rounds) + 1)).all()
        assert torch.equal(together(codes), together(expected))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("find", [split_codes, torch_split_codes])
def test_where_no_point_lies_between_centres_all_codes_are_the_references(find, seed: int) -> None:
    native()
    points, shares = drawn(300, 16, seed)
    rounds = (1, 1, 2, 3, 0)
    expected = torch.tensor(reference(points, shares, rounds))
    assert torch.equal(find(points, shares, rounds), expected)


@pytest.mark.parametrize("find", [split_codes, torch_split_codes])
def test_centres_that_serve_nothing_move_to_where_the_most_is_lost(find) -> None:
    """Two far points and many near ones: splits along the widest column leave centres without points."""
    native()
    points = torch.cat([torch.zeros(30, 2), torch.tensor([[100.0, 0.0], [0.0, 90.0], [60.0, 60.0]])])
    points[:30, 1] = torch.rand(30, generator=torch.Generator().manual_seed(5))
    shares = torch.ones(33)
    rounds = (2, 3, 3)
    codes = find(points, shares, rounds)
    assert torch.equal(codes, torch.tensor(reference(points, shares, rounds)))
    assert len(codes[2].unique()) > 4
    assert len({int(codes[2][place]) for place in (0, 30, 31, 32)}) == 4


def test_shares_may_be_as_small_as_float32_goes() -> None:
    points, _ = drawn(50, 4, 4)
    for tiny in (1e-30, 1e-38):
        codes = split_codes(points, torch.full((50,), tiny), (2, 2))
        assert len(codes[1].unique()) == 4


def test_threads_do_not_change_the_answer() -> None:
    points, shares = drawn(3001, 16, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = split_codes(points, shares, (1, 1, 1, 3))
        torch.set_num_threads(3)
        together = split_codes(points, shares, (1, 1, 1, 3))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)


def test_points_that_are_no_block_of_their_own_are_read_right() -> None:
    points, shares = drawn(200, 24, 2)
    wide = torch.stack([shares, shares], 1)
    found = split_codes(points[:, :8], wide[:, 0], (1, 2))
    assert torch.equal(found, split_codes(points[:, :8].contiguous(), shares, (1, 2)))


@pytest.mark.parametrize("find", [split_codes, torch_split_codes])
def test_no_level_and_no_point_have_no_codes(find) -> None:
    points, shares = drawn(10, 4, 3)
    assert find(points, shares, ()).shape == (0, 10)
    assert find(points[:0], shares[:0], (1, 1)).shape == (2, 0)


@pytest.mark.parametrize(
    ("points", "shares", "rounds"),
    [((3, 4), 2, (1,)), ((4,), 4, (1,)), ((3, 4), 3, (-1,)), ((3, 4), 3, (1,) * 17), ((3, 0), 3, (1,))],
)
def test_shapes_that_do_not_fit_are_refused(points, shares, rounds) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        split_codes(torch.zeros(points), torch.ones(shares), rounds)


@pytest.mark.parametrize("find", [split_codes, torch_split_codes])
def test_fewer_points_than_codes_get_codes_of_their_own(find) -> None:
    """More centres serve nothing than there are points to move to."""
    native()
    points = torch.tensor([[0.0, 1.0], [5.0, 0.0], [-3.0, 2.0]])
    codes = find(points, torch.tensor([1.0, 2.0, 0.5]), (1, 1, 1, 2))
    assert codes.shape == (4, 3) and codes.min() >= 0
    assert all(int(codes[level].max()) < 2 << level for level in range(4))
    assert len(codes[2].unique()) == len(codes[3].unique()) == 3


def test_points_in_float64_have_the_codes_of_float32() -> None:
    native()
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(60, 5, generator=generator) * torch.linspace(3.0, 0.3, 5)
    shares = 0.01 + torch.rand(60, generator=generator)
    expected = torch.tensor(reference(points, shares, (2, 2)))
    assert torch.equal(split_codes(points.double(), shares.double(), (2, 2)), expected)


@pytest.mark.parametrize("seed", range(27, 32))
@pytest.mark.parametrize("find", [split_codes, torch_split_codes])
def test_a_centre_that_serves_nothing_moves_to_the_most_lost_by_weight(find, seed: int) -> None:
    """Points that are all alike are split into two centres alike, of which the second has none."""
    native()
    generator = torch.Generator().manual_seed(seed)
    others = 100 + torch.randn(9, 2, generator=generator) * torch.tensor([3.0, 1.0])
    shares = torch.cat([torch.ones(5), 0.01 + torch.rand(9, generator=generator) ** 3])
    points = torch.cat([torch.zeros(5, 2), others])
    assert torch.equal(find(points, shares, (1, 1)), torch.tensor(reference(points, shares, (1, 1))))
