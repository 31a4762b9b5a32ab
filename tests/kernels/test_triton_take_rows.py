"""Rows of plain tables in Triton: in Triton's interpreter, or on a GPU where there is one."""

import os

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.take_rows import triton_take_rows  # noqa: E402


@pytest.mark.parametrize("dim", [1, 7, 16, 64, 100])
@pytest.mark.parametrize("count", [0, 1, 131])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8], ids=str)
def test_rows_are_those_of_the_table(dim: int, count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(dim)
    table = (torch.randn(50, dim, generator=generator) * 30).to(dtype).to(DEVICE)
    rows = torch.randint(0, 50, (count,), generator=generator).to(DEVICE)
    steps = None
    expected = table[rows].float()
    if dtype == torch.int8:
        steps = torch.rand(50, generator=generator).half().to(DEVICE)
        expected = expected * steps[rows].float().unsqueeze(1)
    found = triton_take_rows(table, rows.int() if count > 1 else rows, steps)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
