"""Costs of changes in C++ and in torch, against one row at a time in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native
from torch import Tensor

from autoembed_kernels.change_cost import Rounding, change_cost, reference, torch_change_cost

Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def drawn(sizes: list[int], dim: int, fields: int, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)
    read, values, root = (torch.randn(sum(sizes), dim, generator=generator) for _ in range(3))
    metrics = torch.randn(fields, dim, dim, generator=generator)
    of_group = torch.randint(fields, (len(sizes),), generator=generator)
    return read, values, root.abs(), torch.tensor(sizes, dtype=torch.int64), of_group, metrics + metrics.mT


@given(
    st.lists(st.sampled_from([0, 1, 3, 4, 5, 300]), max_size=5),
    st.sampled_from([1, 2, 8, 15, 16, 17, 32, 64, 70]),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=80)
def test_costs_are_those_of_one_row_at_a_time(sizes: list[int], dim: int, fields: int, seed: int) -> None:
    native()
    case = drawn(sizes, dim, fields, seed)
    expected = reference(*case)
    # a metric that is no product makes terms cancel: the bound is of the terms' sizes
    size = reference(*case[:5], torch.eye(dim).expand(fields, dim, dim) * dim)
    for found in (change_cost(*case), torch_change_cost(*case)):
        assert found.dtype == torch.float64
        for value, wanted, terms in zip(found.tolist(), expected, size, strict=True):
            assert value == pytest.approx(wanted, rel=1e-4, abs=1e-5 * terms)


def grid(groups: int, dim: int, seed: int) -> Rounding:
    """Codes of 1 to 8 bits, by column, and columns that are not stored."""
    generator = torch.Generator().manual_seed(seed)
    steps = 0.01 + torch.rand(groups, dim, generator=generator)
    half = 2.0 ** torch.randint(0, 8, (dim,), generator=generator)
    shift = 0.5 * (half < 2)
    is_stored = (torch.rand(dim, generator=generator) < 0.8).float()
    return Rounding(steps, -half * is_stored, (half - 1) * is_stored, shift * is_stored)


@given(
    st.lists(st.sampled_from([0, 1, 4, 5, 300]), min_size=1, max_size=4),
    st.sampled_from([1, 2, 8, 15, 16, 17, 32, 64, 70]),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_rows_are_rounded_on_the_way(sizes: list[int], dim: int, seed: int) -> None:
    native()
    read, values, root, counts, fields, metrics = drawn(sizes, dim, 2, seed)
    rounding = grid(len(sizes), dim, seed + 1)
    # values between two codes go to either, by the last bit of a quotient
    group = torch.arange(len(sizes)).repeat_interleave(counts)
    units = read / rounding.steps[group] - rounding.shift
    read = torch.where((units - units.floor() - 0.5).abs() < 1e-3, 0.25 * rounding.steps[group], read)
    case = (read, values, root, counts, fields, metrics)
    expected = reference(*case, rounding)
    size = reference(*case[:5], torch.eye(dim).expand(2, dim, dim) * dim, rounding)
    for found in (change_cost(*case, rounding), torch_change_cost(*case, rounding)):
        for value, wanted, terms in zip(found.tolist(), expected, size, strict=True):
            assert value == pytest.approx(wanted, rel=1e-4, abs=1e-5 * terms)


def test_what_is_read_are_codes_of_the_grid_and_0_where_nothing_is_stored() -> None:
    rows = torch.tensor([[0.9, -3.0, 5.0, 1.24], [-0.1, 0.4, -5.0, 1.26]])
    rounding = Rounding(
        steps=torch.tensor([[1.0, 1.0, 1.0, 0.5]]),
        lowest=torch.tensor([-1.0, -2.0, 0.0, -8.0]),
        highest=torch.tensor([0.0, 1.0, 0.0, 7.0]),
        shift=torch.tensor([0.5, 0.5, 0.0, 0.0]),
    )
    expected = torch.tensor([[0.5, -1.5, 0.0, 1.0], [-0.5, 0.5, 0.0, 1.5]])
    assert torch.equal(rounding.of(rows, torch.tensor([0, 0])), expected)


def test_a_rounding_of_another_shape_is_refused() -> None:
    case = drawn([5, 9], 8, 2, 0)
    good = grid(2, 8, 1)
    for wrong in (
        grid(3, 8, 1),
        grid(2, 7, 1),
        Rounding(good.steps, good.lowest[1:], good.highest, good.shift),
    ):
        with pytest.raises(ValueError, match="does not fit 2 groups of 8 columns"):
            change_cost(*case, wrong)


def test_rows_that_are_no_block_of_their_own_are_read_right() -> None:
    read, values, root, sizes, fields, metrics = drawn([5, 9], 8, 2, 0)
    wide = torch.cat([read, values], dim=1)
    found = change_cost(wide[:, :8], wide[:, 8:], root, sizes, fields, metrics)
    assert torch.equal(found, change_cost(read, values, root, sizes, fields, metrics))


def test_threads_do_not_change_the_answer() -> None:
    case = drawn([50] * 9, 16, 2, 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = change_cost(*case)
        torch.set_num_threads(3)
        together = change_cost(*case)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)


def test_what_does_not_fit_is_refused() -> None:
    read, values, root, sizes, fields, metrics = drawn([5, 9], 8, 2, 0)
    with pytest.raises(ValueError, match="do not fit"):
        change_cost(read[1:], values, root, sizes, fields, metrics)
    with pytest.raises(ValueError, match="groups of 14 rows do not fit 13 rows"):
        change_cost(read[1:], values[1:], root[1:], sizes, fields, metrics)
    with pytest.raises(ValueError, match="do not fit"):
        change_cost(read, values, root, sizes, fields, metrics[:, :7])
    with pytest.raises(IndexError, match="there are 2"):
        change_cost(read, values, root, sizes, fields + 2, metrics)


def test_group_sizes_that_cancel_and_numbers_of_other_types_are_seen() -> None:
    read, values, root, _, _, metrics = drawn([3], 4, 2, 5)
    fields = torch.tensor([0, 1])
    for sizes in ([300, -297], [-1, 4]):
        with pytest.raises(ValueError, match="expected 0 or more"):
            change_cost(read, values, root, torch.tensor(sizes), fields, metrics)
    with pytest.raises(ValueError, match="sizes"):
        change_cost(read, values, root, torch.tensor([1.0, 2.0]), fields, metrics)
    with pytest.raises(ValueError, match="sizes"):
        change_cost(read, values, root, torch.tensor([[1, 2]]), fields.unsqueeze(0), metrics)
    sizes = torch.tensor([1, 2])
    expected = change_cost(read, values, root, sizes, fields, metrics)
    assert torch.equal(change_cost(read, values, root, sizes.int(), fields.int(), metrics), expected)
