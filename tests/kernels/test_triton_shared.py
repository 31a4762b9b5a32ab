"""The Triton look-up of pairs and pools against torch: in Triton's interpreter, or on a GPU."""

import os

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from random_plans import packed_with_rows
from shared_plans import shared_plans

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed_kernels.look_up_shared import torch_look_up_shared

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.look_up_shared import triton_look_up_shared  # noqa: E402


def compare(plan: Plan, seed: int, dtype: torch.dtype = torch.int64, lookups: int = 40) -> None:
    packed, _ = packed_with_rows(plan, seed)
    table = PackedTable(packed).to(DEVICE)
    total = sum(field.rows for field in plan.fields)
    rows = torch.randint(0, total, (lookups,), generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    held = (table.words, *table._held(), table.shared.rows())
    expected = torch_look_up_shared(*held, rows)
    found = triton_look_up_shared(*held, rows.to(dtype))
    assert found.shape == expected.shape and found.dtype == torch.float32
    # a compiler may fuse the product and the sum, which torch rounds one after the other
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-6, equal_nan=True)


@given(shared_plans(), st.integers(0, 2**32))
# the interpreter takes a tenth of a second for each example, and shrinking would try hundreds
@settings(
    deadline=None,
    max_examples=12,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much],
)
def test_rows_of_any_plan_are_looked_up_as_torch_looks_them_up(plan: Plan, seed: int) -> None:
    compare(plan, seed)


@pytest.mark.parametrize(
    "sharing", [Sharing.QUOTIENT_ADD, Sharing.QUOTIENT_MULTIPLY, Sharing.QUOTIENT_CONCATENATE]
)
@pytest.mark.parametrize("precision", ["int3", "fp16", "fp32"])
def test_pairs_beside_rows_of_their_own(sharing: Sharing, precision: str) -> None:
    scale = 0 if precision == "int3" else None
    segment = Segment(1, 5000, sharing, 150, 5, precision, scale=scale)
    hashed = Segment(0, 90, Sharing.HASHED, 7, 8, "fp32")
    fields = (
        FieldPlan("items", 5000, 11, (own(0, 1, 11, "fp32"), segment)),
        FieldPlan("b", 90, 11, (hashed,)),
    )
    compare(Plan(PROFILES["packed"], fields), 3, torch.int32)


@pytest.mark.parametrize(("block", "precision"), [(1, "fp32"), (3, "fp16"), (8, "bf16")])
def test_blocks_by_number_and_by_signature(block: int, precision: str) -> None:
    pool = Segment(0, 9, Sharing.POOL, 50, block, precision)
    signed = Segment(1, 400, Sharing.SIGNATURE_POOL, 0, block, precision, chunks=5)
    by_number = Segment(0, 1, Sharing.POOL, 0, block, precision)
    fields = (FieldPlan("a", 9, 11, (pool,)), FieldPlan("b", 400, 11, (by_number, signed)))
    compare(Plan(PROFILES["packed"], fields), block)


def test_no_look_up_gives_no_row() -> None:
    pool = Segment(0, 9, Sharing.POOL, 50, 2, "fp32")
    compare(Plan(PROFILES["packed"], (FieldPlan("a", 9, 4, (pool,)),)), 0, lookups=0)
