import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.pool_slots import pool_slots, reference


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 1000),
    st.integers(1, 20),
    st.integers(1, 16),
    st.integers(0, 2**40),
)
@settings(deadline=None, max_examples=50)
def test_slots_equal_the_reference_and_blocks_stay_in_the_pool(
    row: int, field: int, blocks: int, block: int, more: int
) -> None:
    slots = pool_slots(torch.tensor([row]), field, blocks, block, block + more)
    assert slots.tolist() == [reference(row, field, blocks, block, block + more)]
    assert int(slots.min()) >= 0 and int(slots.max()) + block <= block + more


def test_rows_of_several_fields_are_placed_in_one_call() -> None:
    rows, fields = torch.tensor([0, 7, 7, 2**31]), torch.tensor([3, 0, 1, 0])
    slots = pool_slots(rows, fields, 4, 8, 10_007)
    for row, field, found in zip(rows.tolist(), fields.tolist(), slots.tolist(), strict=True):
        assert found == reference(row, field, 4, 8, 10_007)
    assert len(slots.unique()) > 12
    assert pool_slots(rows[:0], 0, 4, 8, 10_007).shape == (0, 4)


def test_starts_are_spread_evenly_over_every_value_of_the_pool() -> None:
    starts = pool_slots(torch.arange(10_000), 0, 4, 8, 47)
    # 40 thousand in 40 places: five standard deviations of a place's count are 156
    assert (torch.bincount(starts.flatten(), minlength=40) - 1000).abs().max() < 156


def test_shapes_that_do_not_fit_are_refused() -> None:
    rows = torch.arange(4)
    with pytest.raises(ValueError, match="rows has shape"):
        pool_slots(rows.view(2, 2), 0, 4, 8, 47)
    with pytest.raises(ValueError, match="3 fields, expected one or a field for each of 4 rows"):
        pool_slots(rows, torch.arange(3), 4, 8, 47)
    with pytest.raises(ValueError, match="no block of 8"):
        pool_slots(rows, 0, 4, 8, 7)
    assert torch.equal(pool_slots(rows.int(), 3, 4, 8, 47), pool_slots(rows, 3, 4, 8, 47))
