"""Choices at a price for a byte, in C++ and in torch, against every combination, and against each other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native
from torch import Tensor

from autoembed_kernels.cheapest_runs import cheapest_runs, reference, torch_cheapest_runs

PRICES = torch.tensor([0.0, 1e-9, 0.3, 1.0, 40.0], dtype=torch.float64)


def drawn(groups: int, choices: int, seed: int, forbidden: float = 0.0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(groups, choices, generator=generator, dtype=torch.float64)
    no = torch.rand(groups, choices, generator=generator) < forbidden
    no[:, 0] = False
    sizes, run = (torch.randint(0, 20, (groups, choices), generator=generator) for _ in range(2))
    joins, is_first = (torch.rand(n, generator=generator) < 0.7 for n in (choices, groups))
    is_first[:1] = True
    return torch.where(no, float("inf"), losses), sizes, run, joins, is_first


def value(case: tuple[Tensor, ...], price: float, chosen: list[int]) -> float:
    losses, sizes, run = (x.double() for x in case[:3])
    joins, is_first = case[3:]
    total = 0.0
    for g, c in enumerate(chosen):
        goes_on = not is_first[g] and chosen[g - 1] == c and bool(joins[c])
        total += float(losses[g, c] + price * (sizes[g, c] + (0 if goes_on else run[g, c])))
    return total


@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.0, 0.4]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_no_combination_is_cheaper(groups: int, choices: int, forbidden: float, seed: int) -> None:
    native()
    case = drawn(groups, choices, seed, forbidden)
    for find in (cheapest_runs, torch_cheapest_runs):
        chosen, values = find(*(x.double() for x in case[:3]), *case[3:], PRICES)
        assert chosen.dtype == torch.int64 and values.dtype == torch.float64
        for place, price in enumerate(PRICES.tolist()):
            _, least = reference(*case, price)
            assert float(values[place]) == pytest.approx(least, rel=1e-12)
            assert value(case, price, chosen[place].tolist()) == pytest.approx(least, rel=1e-12)


@given(st.integers(0, 40), st.sampled_from([1, 2, 15, 16, 17, 53]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_both_paths_choose_alike_also_for_many_groups(groups: int, choices: int, seed: int) -> None:
    native()
    case = drawn(groups, choices, seed, 0.2)
    for found, expected in zip(
        cheapest_runs(*case, PRICES),
        torch_cheapest_runs(*(x.double() for x in case[:3]), *case[3:], PRICES),
        strict=True,
    ):
        assert torch.equal(found, expected), "the same sums in the same order"


def test_of_equal_choices_the_first_is_taken() -> None:
    case = (*torch.zeros(3, 3, 4, dtype=torch.float64), torch.ones(4).bool(), torch.ones(3).bool())
    for find in (cheapest_runs, torch_cheapest_runs):
        chosen, values = find(*case, PRICES)
        assert not chosen.any() and not values.any()


def test_where_all_is_forbidden_the_value_is_infinite_and_choices_are_in_range() -> None:
    case = drawn(3, 4, 1)
    losses = torch.full_like(case[0], float("inf"))
    for find in (cheapest_runs, torch_cheapest_runs):
        chosen, values = find(losses, *(x.double() for x in case[1:3]), *case[3:], PRICES)
        assert values.isinf().all() and chosen.min() >= 0 and chosen.max() < 4


def test_threads_do_not_change_the_answer() -> None:
    case, before = drawn(30, 20, 7), torch.get_num_threads()
    prices = torch.logspace(-6, 3, 57, dtype=torch.float64)
    try:
        torch.set_num_threads(1)
        alone = cheapest_runs(*case, prices)
        torch.set_num_threads(3)
        together = cheapest_runs(*case, prices)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_arrays_that_are_no_block_of_their_own_are_read_right() -> None:
    losses, sizes, run, joins, is_first = drawn(5, 8, 3)
    expected = cheapest_runs(losses, sizes, run, joins, is_first, PRICES)
    turned = (x.T.contiguous().T for x in (losses, sizes, run))
    wide = torch.stack([PRICES, PRICES], 1)[:, 0]
    for found, want in zip(cheapest_runs(*turned, joins, is_first, wide), expected, strict=True):
        assert torch.equal(found, want)


@pytest.mark.parametrize("wrong", range(6))
def test_shapes_that_do_not_fit_are_refused(wrong: int) -> None:
    case = [*drawn(3, 4, 0), PRICES]
    case[wrong] = case[wrong][:-1] if wrong < 5 else case[wrong][None]
    with pytest.raises(ValueError, match="do not fit"):
        cheapest_runs(*case)
    with pytest.raises(ValueError, match="do not fit"):
        cheapest_runs(*(x[..., :0] for x in case[:4]), case[4], PRICES)


@pytest.mark.parametrize("find", [cheapest_runs, torch_cheapest_runs])
def test_a_group_goes_on_where_that_costs_no_more(find) -> None:
    """Also where bytes cost nothing: a run that goes on is the smaller file."""
    native()
    losses = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    run = torch.full((2, 2), 5.0, dtype=torch.float64)
    joins, is_first = torch.tensor([True, True]), torch.tensor([True, False])
    prices = torch.zeros(1, dtype=torch.float64)
    chosen, values = find(losses, torch.zeros_like(run), run, joins, is_first, prices)
    assert chosen.tolist() == [[1, 1]] and values.tolist() == [0.0]


def test_flags_of_other_types_are_read_right() -> None:
    native()
    generator = torch.Generator().manual_seed(3)
    losses, sizes, run = torch.rand(3, 9, 5, generator=generator, dtype=torch.float64)
    joins, is_first = (torch.rand(n, generator=generator) < 0.6 for n in (5, 9))
    is_first[0] = True
    prices = torch.tensor([0.1, 1.0], dtype=torch.float64)

    def found(joins: Tensor, is_first: Tensor) -> list[list[int]]:
        return cheapest_runs(losses, sizes, run, joins, is_first, prices)[0].tolist()

    for kind in (torch.int64, torch.float32):
        assert found(joins.to(kind), is_first.to(kind)) == found(joins, is_first)
