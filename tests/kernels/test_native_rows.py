"""Distinct rows, sums over repeats and row updates in C++ against the same in torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native, poisoned

from autoembed_kernels.dedupe import (
    Repeats,
    native_dedupe,
    native_sum_repeats,
    native_take_rows,
    torch_dedupe,
)
from autoembed_kernels.row_update import (
    OPTIMIZERS,
    RowOptimizer,
    native_row_update,
    reference,
    torch_row_update,
)

BOUNDS = st.sampled_from([1, 2, 7, 100, 2**12, 2**12 + 1, 2**24, 2**25, 2**31, 2**32 - 1])
DIMS = st.sampled_from([1, 3, 7, 8, 13, 16, 17, 32, 64, 65])


@st.composite
def lookups(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """Rows, some of them repeated and at the ends of their range, and the bound."""
    bound = draw(BOUNDS)
    held = [*draw(st.lists(st.integers(0, bound - 1), max_size=12)), 0, bound - 1]
    places = draw(st.lists(st.integers(0, len(held) - 1), max_size=70))
    return torch.tensor([held[place] for place in places], dtype=torch.int64), bound


@given(lookups())
@settings(deadline=None, max_examples=25)
def test_distinct_rows_and_their_repeats_are_those_of_torch(case: tuple[torch.Tensor, int]) -> None:
    rows, bound = case
    unique, repeats = native_dedupe(native(), rows, bound)
    expected, expected_repeats = torch_dedupe(rows, bound)
    assert torch.equal(unique, expected)
    for name in ("inverse", "order", "starts"):
        assert torch.equal(getattr(repeats, name), getattr(expected_repeats, name)), name


def test_a_large_batch_has_the_distinct_rows_of_torch() -> None:
    rows = (torch.rand(60_000, generator=torch.Generator().manual_seed(0)) ** 4 * 9_000_000).long()
    unique, repeats = native_dedupe(native(), rows, 9_000_000)
    expected, expected_repeats = torch_dedupe(rows, 9_000_000)
    assert torch.equal(unique, expected)
    assert torch.equal(repeats.inverse, expected_repeats.inverse)
    assert torch.equal(repeats.order, expected_repeats.order)


@given(lookups().filter(lambda case: case[1] <= 2**12), DIMS, st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_rows_taken_and_gradients_summed_are_those_of_torch(
    case: tuple[torch.Tensor, int], dim: int, seed: int
) -> None:
    rows, bound = case
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(bound, dim, generator=generator)
    gradient = torch.randn(len(rows), dim, generator=generator)
    _, repeats = torch_dedupe(rows, bound)
    taken = native_take_rows(native(), table, rows, poisoned(len(rows), dim))
    distinct = len(repeats.starts)
    summed = native_sum_repeats(native(), gradient, repeats.order, repeats.starts, poisoned(distinct, dim))
    assert torch.equal(taken, table[rows])
    expected = torch.zeros(distinct, dim, dtype=torch.float64).index_add(
        0, repeats.inverse, gradient.double()
    )
    # at most 70 numbers below 5 are added in float32
    torch.testing.assert_close(summed.double(), expected, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("wrong", [-1, 5, 2**40, -(2**63)])
def test_a_row_out_of_range_raises_and_changes_nothing(wrong: int) -> None:
    rows = torch.tensor([0, 4, wrong, 2])
    with pytest.raises(IndexError, match=f"row {wrong} at place 2 .* there are 5"):
        native_dedupe(native(), rows, 5)
    weight = torch.ones(5, 3)
    with pytest.raises(IndexError, match="place 2"):
        native_take_rows(native(), weight, rows, poisoned(4, 3))
    optimizer = RowOptimizer("adam")
    state = optimizer.state(weight)
    with pytest.raises(IndexError, match="place 2"):
        native_row_update(native(), optimizer, weight, state, rows, torch.ones(4, 3), 0.1)
    assert torch.equal(weight, torch.ones(5, 3))
    assert not any(held.any() for held in state.values())


@given(
    st.sampled_from(OPTIMIZERS),
    DIMS,
    st.integers(1, 40),
    st.sampled_from([0.0, 0.3]),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=25)
def test_updates_are_those_of_torch_and_of_the_float64_reference(
    name: str, dim: int, height: int, l2: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = RowOptimizer(name, betas=(0.8, 0.95), l2=l2)
    weight = torch.randn(height, dim, generator=generator)
    plain, exact = weight.clone(), weight.double()
    states = [optimizer.state(each) for each in (weight, plain, exact)]
    for _ in range(4):
        rows = torch.randperm(height, generator=generator)[
            : int(torch.randint(height + 1, (), generator=generator))
        ]
        gradient = torch.randn(len(rows), dim, generator=generator)
        native_row_update(native(), optimizer, weight, states[0], rows, gradient, 0.05)
        torch_row_update(optimizer, plain, states[1], rows, gradient, 0.05)
        reference(optimizer, exact, states[2], rows, gradient.double(), 0.05)
    torch.testing.assert_close(weight, plain, rtol=1e-6, atol=1e-6)
    # float32 against float64 over four steps of size 0.05, as for the torch version
    torch.testing.assert_close(weight.double(), exact, rtol=1e-5, atol=1e-6)
    for key in optimizer.state_names:
        torch.testing.assert_close(states[0][key], states[1][key], rtol=1e-6, atol=1e-6)


def test_the_steps_of_a_row_are_counted_past_the_kept_corrections() -> None:
    optimizer = RowOptimizer("adam")
    weight = torch.zeros(3, 2)
    plain, state, expected = weight.clone(), optimizer.state(weight), optimizer.state(weight)
    # the kernel keeps the corrections of 256 counts; 1 and 257 share a place
    for each in (state, expected):
        each["touches"].copy_(torch.tensor([0, 256, 5000]))
    rows, gradient = torch.arange(3), torch.ones(3, 2)
    native_row_update(native(), optimizer, weight, state, rows, gradient, 0.1)
    torch_row_update(optimizer, plain, expected, rows, gradient, 0.1)
    torch.testing.assert_close(weight, plain, rtol=1e-6, atol=1e-7)
    assert torch.equal(state["touches"], expected["touches"])


def test_an_empty_batch_updates_nothing() -> None:
    rows = torch.zeros(0, dtype=torch.int64)
    unique, repeats = native_dedupe(native(), rows, 9)
    assert unique.shape == (0,) and isinstance(repeats, Repeats)
    assert native_sum_repeats(native(), torch.zeros(0, 4), rows, rows, poisoned(0, 4)).shape == (0, 4)
