"""Pairs and blocks of a pool in C++: against torch bit for bit, addresses against exact integers."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_library import native, poisoned
from random_plans import packed_with_rows
from shared_plans import shared_plans

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed_kernels.look_up_shared import look_up_shared, native_look_up_shared, torch_look_up_shared
from autoembed_kernels.pool_slots import reference as pool_reference
from autoembed_kernels.quotient_remainder import least_stored
from autoembed_kernels.quotient_remainder import reference as pair_reference
from autoembed_kernels.signature_pool import reference as signed_reference

KINDS = {
    "add": Sharing.QUOTIENT_ADD,
    "multiply": Sharing.QUOTIENT_MULTIPLY,
    "concatenate": Sharing.QUOTIENT_CONCATENATE,
}


def compare(table: PackedTable, rows: torch.Tensor, columns: int = 1, threads: int = 1) -> torch.Tensor:
    held = (table.words, *table._held(), table.shared.rows())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        out = poisoned(len(rows), table.width)
        found = native_look_up_shared(native(), *held, rows, columns, out)
    finally:
        torch.set_num_threads(before)
    expected = torch_look_up_shared(*held, rows)
    assert found.shape == expected.shape
    # the same bits, of numbers that are none, too
    assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
    return found


@given(
    shared_plans(),
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([torch.int64, torch.int32]),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
def test_rows_of_any_plan_are_those_of_torch_to_the_bit(
    plan: Plan, seed: int, columns: int, threads: int, dtype: torch.dtype
) -> None:
    packed, _ = packed_with_rows(plan, seed)
    table = PackedTable(packed)
    total = sum(field.rows for field in plan.fields)
    some = torch.randint(0, total, (90,), generator=torch.Generator().manual_seed(seed))
    for rows in (torch.cat([some, torch.arange(total)]), some[:0], some[:1], some[:1].expand(70)):
        compare(table, rows.to(dtype).contiguous(), columns, threads)


def table_of(*fields: FieldPlan) -> tuple[PackedTable, dict[tuple[int, int], torch.Tensor]]:
    packed, rows = packed_with_rows(Plan(PROFILES["packed"], fields), 3)
    return PackedTable(packed), rows


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize(("ids", "more"), [(4, 0), (5000, 31), (70_001, 2000)])
def test_pairs_are_those_of_exact_integers(how: str, ids: int, more: int) -> None:
    stored = least_stored(ids) + (more if ids > 4 else 0)
    segment = Segment(1, 1 + ids, KINDS[how], stored, 3, "fp32")
    table, rows = table_of(FieldPlan("items", 1 + ids, 6, (own(0, 1, 6, "fp32"), segment)))
    weight = rows[0, 1]
    # more than are combined together
    places = torch.randint(0, ids, (2500,), generator=torch.Generator().manual_seed(ids))
    found = compare(table, torch.cat([torch.tensor([0]), 1 + places]))
    assert torch.equal(found[0], rows[0, 0][0])
    for place, vector in zip(places.tolist()[::50], found[1::50], strict=True):
        q, r = pair_reference(place, ids, stored)
        first, second = weight[q], weight[table.pairs.quotients[1] + r]
        joined = {"add": first + second, "multiply": first * second}.get(how)
        if joined is None:
            assert torch.equal(vector, torch.cat([first, second]))
        else:
            assert torch.equal(vector, torch.cat([joined, torch.zeros(3)]))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("block", [1, 3, 8])
def test_blocks_lie_where_exact_integers_say(precision: str, block: int) -> None:
    dim, stored = 11, 50
    pool = Segment(0, 9, Sharing.POOL, stored, block, precision)
    signed = Segment(1, 400, Sharing.SIGNATURE_POOL, 0, block, precision, chunks=5)
    by_number = Segment(0, 1, Sharing.POOL, 0, block, precision)
    table, rows = table_of(FieldPlan("a", 9, dim, (pool,)), FieldPlan("b", 400, dim, (by_number, signed)))
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    values = rows[0, 0].flatten().to(dtype).float()
    found = compare(table, torch.arange(409), columns=2)
    blocks, slots = -(-dim // block), stored * block
    for row in (0, 4, 8, 9, 10, 200, 408):
        if row < 9:
            begins = pool_reference(row, 0, blocks, block, slots)
        elif row == 9:
            begins = pool_reference(0, 1, blocks, block, slots)
        else:
            at = 8 * (row - 10)
            stored_word = bytes(table.pool_address.segment_index[at : at + 8].tolist())
            begins = signed_reference(int.from_bytes(stored_word, "little"), 5, blocks, block, slots)
        vector = torch.cat([values[begin : begin + block] for begin in begins])[:dim]
        assert torch.equal(found[row], vector)


@pytest.mark.parametrize("row", [-1, 17, 2**40, -(2**62)])
def test_a_row_out_of_range_is_told(row: int) -> None:
    native()
    pool = Segment(0, 8, Sharing.POOL, 5, 2, "fp16")
    pairs = Segment(0, 9, Sharing.QUOTIENT_ADD, 6, 4, "int4", scale=0)
    table, _ = table_of(FieldPlan("a", 8, 4, (pool,)), FieldPlan("b", 9, 4, (pairs,)))
    with pytest.raises(IndexError, match=f"row {row} at place 2 is out of range, there are 17"):
        table.stored(torch.tensor([0, 16, row, 3]))


def test_signatures_that_are_cut_off_are_told_not_read() -> None:
    import dataclasses

    pool = Segment(0, 8, Sharing.SIGNATURE_POOL, 5, 2, "fp16")
    table, _ = table_of(FieldPlan("a", 8, 4, (pool,)))
    shared = table.shared.rows()
    short = dataclasses.replace(shared, index=shared.index[:-1])
    held = (table.words, *table._held())
    native()
    assert look_up_shared(*held, short, torch.arange(7)).shape == (7, 4)
    with pytest.raises(IndexError, match="row 7 at place 1"):
        look_up_shared(*held, short, torch.tensor([2, 7]))


def test_a_table_that_was_moved_reads_what_it_reads_before() -> None:
    pairs = Segment(0, 9, Sharing.QUOTIENT_MULTIPLY, 6, 4, "int4", scale=0)
    table, _ = table_of(FieldPlan("b", 9, 4, (pairs,)))
    before = table.stored(torch.arange(9))
    held = table.shared.rows()
    assert table.shared.rows() is held
    table._apply(torch.clone)
    assert table.shared.rows() is not held
    assert torch.equal(table.stored(torch.arange(9)), before)


def test_look_ups_of_other_shapes_are_refused() -> None:
    segment = Segment(0, 100, KINDS["add"], 40, 3, "fp32")
    table, _ = table_of(FieldPlan("items", 100, 6, (segment,)))
    held, rows = (*table._held(), table.shared.rows()), torch.zeros(2, 3, dtype=torch.int64)
    for words, some in ((table.words, rows), (table.words.view(torch.uint8), rows[0])):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            look_up_shared(words, *held, some)
