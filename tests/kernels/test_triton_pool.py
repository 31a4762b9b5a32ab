"""Bags of packed rows in Triton against torch: in Triton's interpreter, or on a GPU where there is one."""

import dataclasses
import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from random_plans import packed_with_rows, plans

from autoembed.packed import PackedTable
from autoembed.plan import Plan
from autoembed_kernels.gather_packed import SEGMENT_TENSORS
from autoembed_kernels.look_up_packed import ROW_TENSORS
from autoembed_kernels.pool_packed import torch_pool_packed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.pool_packed import triton_pool_packed  # noqa: E402


@given(
    plans(single_rows=True),
    st.integers(0, 5),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.booleans(),
    st.integers(0, 2**32),
)
# the interpreter takes a tenth of a second for each example, and shrinking would try hundreds
@settings(deadline=None, max_examples=10, phases=[Phase.generate])
def test_bags_of_any_plan_are_pooled_as_torch_pools_them(
    plan: Plan, examples: int, longest: list[int], weighted: bool, seed: int
) -> None:
    table = PackedTable(packed_with_rows(plan, seed)[0]).to(DEVICE)
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.cat([torch.randint(0, most + 1, (examples,), generator=generator) for most in longest])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    total = sum(field.rows for field in plan.fields)
    rows = torch.randint(0, total, (int(offsets[-1]),), generator=generator)
    weights = torch.randn(len(rows), generator=generator).to(DEVICE) if weighted else None
    means = torch.arange(len(longest)) % 2 == seed % 2
    layout = dataclasses.replace(
        table._layout, **{name: getattr(table, f"segment_{name}") for name in SEGMENT_TENSORS}
    )
    addresses = dataclasses.replace(
        table._addresses, **{name: getattr(table, f"row_{name}") for name in ROW_TENSORS}
    )
    bags = (rows.to(DEVICE), offsets.to(DEVICE), means.to(DEVICE), weights)
    found = triton_pool_packed(table.words, layout, addresses, *bags)
    expected = torch_pool_packed(table.words, layout, addresses, *bags)
    assert found.shape == (examples, len(longest), table.width)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
