"""The Triton look-up against torch: in Triton's interpreter, or on a GPU where there is one."""

import dataclasses
import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from random_plans import packed_with_rows, plans

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed_kernels.gather_packed import SEGMENT_TENSORS, torch_gather_packed
from autoembed_kernels.look_up_packed import ROW_TENSORS, stored_rows, torch_look_up_packed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.gather_packed import triton_gather_packed  # noqa: E402
from autoembed_kernels.gpu.look_up_packed import triton_look_up_packed  # noqa: E402


def compare(plan: Plan, seed: int, dtype: torch.dtype = torch.int64, lookups: int = 90) -> None:
    packed, _ = packed_with_rows(plan, seed)
    table = PackedTable(packed).to(DEVICE)
    total = sum(field.rows for field in plan.fields)
    rows = torch.randint(0, total, (lookups,), generator=torch.Generator().manual_seed(seed))
    rows = torch.cat([rows, torch.arange(total)]).to(DEVICE) if lookups else rows.to(DEVICE)
    layout = dataclasses.replace(
        table._layout, **{name: getattr(table, f"segment_{name}") for name in SEGMENT_TENSORS}
    )
    addresses = dataclasses.replace(
        table._addresses, **{name: getattr(table, f"row_{name}") for name in ROW_TENSORS}
    )
    expected = torch_look_up_packed(table.words, layout, addresses, rows)
    found = triton_look_up_packed(table.words, layout, addresses, rows.to(dtype))
    assert found.shape == expected.shape and found.dtype == torch.float32
    # a compiler may fuse the product and the sum, which torch rounds one after the other
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-6, equal_nan=True)
    _, segment, stored = stored_rows(addresses, rows)
    gathered = triton_gather_packed(table.words, layout, segment, stored)
    expected = torch_gather_packed(table.words, layout, segment, stored)
    torch.testing.assert_close(gathered, expected, rtol=2e-6, atol=1e-6, equal_nan=True)


@given(plans(single_rows=True), st.integers(0, 2**32))
# the interpreter takes a tenth of a second for each example, and shrinking would try hundreds
@settings(deadline=None, max_examples=12, phases=[Phase.generate])
def test_rows_of_any_plan_are_looked_up_as_torch_looks_them_up(plan: Plan, seed: int) -> None:
    compare(plan, seed)


@pytest.mark.parametrize("bits", [*range(1, 9), 16, 32])
def test_every_width_is_read_to_its_last_row_with_32_bit_rows(bits: int) -> None:
    precision = {16: "bf16", 32: "fp32"}.get(bits, f"int{bits}")
    segment = own(0, 37, 11, precision, scale=0 if bits <= 8 else None)
    compare(Plan(PROFILES["packed"], (FieldPlan("items", 37, 13, (segment,)),)), bits, torch.int32)


def test_hashed_rows_meet_the_buckets_that_the_trainer_chose() -> None:
    hashed = Segment(40, 5000, Sharing.HASHED, 17, 5, "fp16")
    field = FieldPlan("items", 5000, 8, (own(0, 40, 8, "fp32"), hashed))
    other = FieldPlan("users", 90, 8, (Segment(0, 90, Sharing.HASHED, 7, 8, "fp32"),))
    compare(Plan(PROFILES["packed"], (field, other)), 3)


def test_no_look_up_gives_no_row() -> None:
    field = FieldPlan("items", 3, 4, (own(0, 3, 4, "fp32"),))
    compare(Plan(PROFILES["packed"], (field,)), 0, lookups=0)
