"""Rows added to rows, in C++ and in torch, against one row at a time in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native
from torch import Tensor

from autoembed_kernels.add_rows import add_rows, reference


def drawn(height: int, count: int, dim: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(height, (count,), generator=generator) if height else torch.zeros(0).long()
    values = torch.randn(len(rows), dim, generator=generator)
    return torch.randn(height, dim, generator=generator), rows, values


@given(
    st.sampled_from([0, 1, 2, 17, 100]),
    st.sampled_from([0, 1, 16, 17, 50]),
    st.sampled_from([1, 3, 8, 16, 17, 32, 64]),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=80)
def test_sums_are_those_of_one_row_at_a_time(height: int, count: int, dim: int, seed: int) -> None:
    native()
    table, rows, values = drawn(height, count, dim, seed)
    expected = reference(table, rows, values)
    in_torch = add_rows(table.double(), rows, values.double())  # C++ takes float32 alone
    torch.testing.assert_close(in_torch, expected)
    found = table.clone()
    assert add_rows(found, rows, values) is found
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_threads_and_the_layout_of_the_values_do_not_change_the_sums() -> None:
    table, rows, values = drawn(50, 2000, 16, 1)
    wide = torch.cat([values, values], 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = add_rows(table.clone(), rows, values)
        torch.set_num_threads(3)
        together = add_rows(table.clone(), rows.int(), wide[:, 16:])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)
    assert torch.equal(alone, table.index_add(0, rows, values))


def test_a_table_that_is_no_block_of_its_own_is_added_to() -> None:
    table, rows, values = drawn(20, 40, 8, 2)
    wide = torch.zeros(20, 16)
    wide[:, :8] = table
    add_rows(wide[:, :8], rows, values)
    torch.testing.assert_close(wide[:, :8].double(), reference(table, rows, values), rtol=1e-5, atol=1e-5)
    assert not wide[:, 8:].any()


@pytest.mark.parametrize("wrong", [-1, 5])
def test_a_row_out_of_range_is_told_before_anything_is_added(wrong: int) -> None:
    native()
    table = torch.zeros(5, 4)
    with pytest.raises(IndexError, match=f"row {wrong} at place 2 is out of range, there are 5"):
        add_rows(table, torch.tensor([0, 1, wrong]), torch.ones(3, 4))
    assert not table.any()


def test_what_does_not_fit_is_refused() -> None:
    table, rows = torch.zeros(5, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="values"):
        add_rows(table, rows, torch.ones(2, 3))
    with pytest.raises(ValueError, match="values"):
        add_rows(table, rows, torch.ones(3, 4))
    with pytest.raises(ValueError, match="table"):
        add_rows(torch.zeros(5), rows, torch.ones(2, 1))
    with pytest.raises(ValueError, match="rows"):
        add_rows(table, rows.float(), torch.ones(2, 4))
