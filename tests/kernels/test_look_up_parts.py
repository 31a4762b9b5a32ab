"""Rows in parts read in C++ and in Triton against torch, which reads one part after the other."""

import dataclasses
import os

import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from native_library import native, poisoned
from random_plans import packed_with_rows, plans
from torch import Tensor

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed_kernels.gather_packed import SEGMENT_TENSORS, PackedSegments
from autoembed_kernels.look_up_packed import ROW_TENSORS, PackedRows
from autoembed_kernels.look_up_parts import look_up_parts, native_look_up_parts, torch_look_up_parts

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
in_parts = plans(PROFILES["packed"], single_rows=True, parts=True)


def held(table: PackedTable) -> tuple[Tensor, PackedSegments, PackedRows, Tensor, int]:
    layout = dataclasses.replace(
        table._layout, **{name: getattr(table, f"segment_{name}") for name in SEGMENT_TENSORS}
    )
    addresses = dataclasses.replace(
        table._addresses, **{name: getattr(table, f"row_{name}") for name in ROW_TENSORS}
    )
    return table.words, layout, addresses, table.tails.count, table.tails.most


def table_and_rows(plan: Plan, seed: int) -> tuple[PackedTable, Tensor]:
    table = PackedTable(packed_with_rows(plan, seed)[0])
    total = sum(field.rows for field in plan.fields)
    drawn = torch.randint(0, total, (150,), generator=torch.Generator().manual_seed(seed))
    return table, torch.cat([drawn, torch.arange(total)])


@given(in_parts, st.integers(0, 2**32), st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_rows_of_any_plan_are_read_as_torch_reads_them(plan: Plan, seed: int, columns: int) -> None:
    table, rows = table_and_rows(plan, seed)
    expected = torch_look_up_parts(*held(table), rows)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = poisoned(len(rows), table.width)
            assert torch.equal(native_look_up_parts(native(), *held(table)[:4], rows, columns, out), expected)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(look_up_parts(*held(table), rows.int(), columns), expected)


@given(in_parts, st.integers(0, 2**32))
# the interpreter takes a tenth of a second for each example, and shrinking would try hundreds
@settings(deadline=None, max_examples=10, phases=[Phase.generate])
def test_a_gpu_reads_them_so_too(plan: Plan, seed: int) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    from autoembed_kernels.gpu.look_up_parts import triton_look_up_parts

    table, rows = table_and_rows(plan, seed)
    assume(table.tails.columns)
    expected = torch_look_up_parts(*held(table), rows)
    found = triton_look_up_parts(*held(table.to(DEVICE)), rows.to(DEVICE))
    torch.testing.assert_close(found.cpu(), expected, rtol=2e-6, atol=1e-6)


def small() -> PackedTable:
    """Two fields; in the first, rows 4 on read its row 0, which is in parts."""
    tail = Segment(4, 4, Sharing.TAIL, 4, 3, "int2", False, 1)
    away = Segment(4, 9, Sharing.OOV)
    first = FieldPlan("first", 9, 8, (own(0, 4, 2, "int4", scale=0), tail, away))
    second = FieldPlan("second", 5, 8, (own(0, 5, 8, "fp32"),))
    return PackedTable(packed_with_rows(Plan(PROFILES["packed"], (first, second)), 3)[0])


def test_rows_that_read_row_0_get_all_its_parts() -> None:
    table = small()
    values = table.stored(torch.tensor([0, 3, 7, 8, 9, 13]))
    assert torch.equal(values[2], values[0]) and torch.equal(values[3], values[0])
    assert values[0, 2:5].any() and not values[:4, 5:].any() and values[4].all()


def test_no_row_and_rows_out_of_range() -> None:
    table = small()
    assert table.stored(torch.zeros(0, dtype=torch.int64)).shape == (0, 8)
    for wrong in (-1, 14):
        with pytest.raises(IndexError, match=f"row {wrong} at place 1 is out of range, there are 14"):
            table.stored(torch.tensor([0, wrong]))


def test_rows_in_more_parts_than_a_byte_counts_are_read_by_torch() -> None:
    tails = [Segment(3, 3, Sharing.TAIL, 3, 1, "int2", False, 1) for _ in range(257)]
    field = FieldPlan("field", 3, 258, (own(0, 3, 1, "int4", scale=0), *tails))
    table = PackedTable(packed_with_rows(Plan(PROFILES["packed"], (field,)), 3)[0])
    rows = torch.tensor([2, 0, 1])
    expected = torch_look_up_parts(*held(table), rows)
    assert table.tails.most == 257 and expected.ne(0).any(0).float().mean() > 0.5
    assert torch.equal(look_up_parts(*held(table), rows), expected)


def test_shapes_that_do_not_fit_are_refused() -> None:
    words, layout, addresses, tails, most = held(small())
    rows = torch.tensor([0, 3])
    expected = look_up_parts(words, layout, addresses, tails, most, rows)
    assert torch.equal(look_up_parts(words, layout, addresses, tails.int(), most, rows), expected)
    for wrong in (
        (words, layout, addresses, tails[:1], most, rows),
        (words, layout, addresses, tails, most, rows.view(1, 2)),
        (words.view(torch.uint8), layout, addresses, tails, most, rows),
    ):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            look_up_parts(*wrong)
