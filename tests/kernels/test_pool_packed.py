"""Bags of packed rows summed in C++ against torch."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native, poisoned
from random_plans import packed_with_rows, plans

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, own
from autoembed_kernels.pool_packed import native_pool_packed, pool_packed, torch_pool_packed


def small_table(dim: int, precision: str, segments: int = 1) -> PackedTable:
    scale = 0 if precision.startswith("int") else None
    stops = [9 * (number + 1) // segments for number in range(segments)]
    held = [own(start, stop, dim, precision, scale=scale) for start, stop in pairwise([0, *stops])]
    plan = Plan(PROFILES["packed"], (FieldPlan("a", 9, dim, tuple(held)),))
    return PackedTable(packed_with_rows(plan, 0)[0])


@given(
    plans(single_rows=True),
    st.integers(0, 12),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.sampled_from([torch.int32, torch.int64]),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=25)
def test_bags_of_any_plan_are_pooled_as_torch_pools_them(
    plan: Plan, examples: int, longest: list[int], dtype: torch.dtype, weighted: bool, seed: int
) -> None:
    table = PackedTable(packed_with_rows(plan, seed)[0])
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.cat([torch.randint(0, most + 1, (examples,), generator=generator) for most in longest])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    total = sum(field.rows for field in plan.fields)
    rows = torch.randint(0, total, (int(offsets[-1]),), generator=generator).to(dtype)
    weights = torch.randn(len(rows), generator=generator) if weighted else None
    means = torch.arange(len(longest)) % 2 == seed % 2
    held = (table.words, table._layout, table._addresses, rows, offsets, means, weights)
    found = native_pool_packed(native(), *held, poisoned(examples, len(longest), table.width))
    torch.testing.assert_close(found, torch_pool_packed(*held), rtol=1e-6, atol=1e-5)
    assert torch.equal(pool_packed(*held), found)


@pytest.mark.parametrize("dim", [1, 7, 16, 24, 64])
@pytest.mark.parametrize("precision", ["int1", "int4", "int8", "fp16", "fp32"])
def test_a_bag_longer_than_a_block_is_the_sum_of_its_rows(dim: int, precision: str) -> None:
    table = small_table(dim, precision)
    rows, offsets = torch.arange(200) % 9, torch.tensor([0, 0, 150, 150, 200])
    held = (table.words, table._layout, table._addresses, rows, offsets, torch.tensor([False, True]))
    found = native_pool_packed(native(), *held, None, poisoned(2, 2, dim))
    values = table.decode(0)[rows].double()
    empty = torch.zeros(dim, dtype=torch.float64)
    expected = torch.stack([empty, empty, values[:150].sum(0), values[150:].mean(0)])  # examples x fields
    torch.testing.assert_close(found.double(), expected.view(2, 2, dim), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("alike", [True, False])
def test_bags_of_several_fields_are_each_decoded_as_their_own(alike: bool) -> None:
    """A block of one field's look-ups is decoded while the next, of another field, is being found."""
    second = own(0, 9, 8, "int8", scale=1) if alike else own(0, 9, 4, "int4", scale=1)
    fields = (FieldPlan("a", 9, 8, (own(0, 9, 8, "int8", scale=0),)), FieldPlan("b", 9, 8, (second,)))
    table = PackedTable(packed_with_rows(Plan(PROFILES["packed"], fields), 0)[0])
    examples = 300
    ids = torch.arange(examples) % 9
    offsets, means = torch.arange(3 * examples + 1), torch.tensor([False, True, False])
    held = (table.words, table._layout, table._addresses, torch.cat([ids, 9 + ids, ids]), offsets, means)
    found = native_pool_packed(native(), *held, None, poisoned(examples, 3, 8))
    for place, field in enumerate((0, 1, 0)):
        torch.testing.assert_close(found[:, place], table.decode(field)[ids], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dim", [32, 64])
@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("segments", [1, 3])
def test_bags_summed_as_whole_numbers_are_the_same_bits_wherever_a_thread_begins(
    bits: int, dim: int, largest: bool, segments: int
) -> None:
    table = small_table(dim, f"int{bits}", segments)
    if largest:
        table.words.view(torch.uint8)[: 9 * dim * bits // 8] = 255
    lengths = torch.tensor([1, 0, 16, 17, 18, 63, 64, 65, 256, 257, 600, 2, 3])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    rows = torch.randint(9, (int(offsets[-1]),), generator=torch.Generator().manual_seed(0))
    held, mean = (table.words, table._layout, table._addresses), torch.tensor([False])
    whole = native_pool_packed(native(), *held, rows, offsets, mean, None, poisoned(13, 1, dim))
    for bag in range(13):
        own, ends = rows[offsets[bag] : offsets[bag + 1]], torch.tensor([0, int(lengths[bag])])
        alone = native_pool_packed(native(), *held, own, ends, mean, None, poisoned(1, 1, dim))
        assert torch.equal(whole[bag], alone[0])
    values = table.decode(0)[rows].double()
    expected = torch.stack([part.sum(0) for part in values.split(lengths.tolist())])
    # up to 600 numbers in float32
    torch.testing.assert_close(whole[:, 0].double(), expected, rtol=600 * 2**-24, atol=1e-2)


def test_rows_and_offsets_out_of_range_raise() -> None:
    table = small_table(5, "int3")
    held = (table.words, table._layout, table._addresses)
    mean = torch.tensor([False])
    for wrong in (-1, 9):
        with pytest.raises(IndexError, match=f"row {wrong} at place 1 is out of range, there are 9"):
            native_pool_packed(
                *(native(), *held, torch.tensor([0, wrong]), torch.tensor([0, 2])),
                *(mean, None, poisoned(1, 1, 5)),
            )
    for offsets in ([0, 3, 2], [1, 1, 2], [0, 1, 1], [0, 1, 3], [0, 2]):
        with pytest.raises(ValueError, match="offsets"):
            native_pool_packed(
                *(native(), *held, torch.tensor([0, 1]), torch.tensor(offsets)),
                *(mean, None, poisoned(2, 1, 5)),
            )


def test_shapes_that_do_not_fit_are_refused() -> None:
    table, mean = small_table(5, "int3"), torch.tensor([False])
    rows, offsets, weights = torch.tensor([0, 1]), torch.tensor([0, 2]), torch.ones(2)
    for words, some, of_each in (
        (table.words, rows.view(1, 2), weights),
        (table.words, rows, weights.view(1, 2)),
        (table.words, rows, weights[:1]),
        (table.words.view(torch.uint8), rows, weights),
    ):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            pool_packed(words, table._layout, table._addresses, some, offsets, mean, of_each)
