"""The probe of the row cache in Triton: in Triton's interpreter, or on a GPU where there is one."""

import os

import pytest
import torch

from autoembed_kernels.cache_probe import torch_cache_probe
from autoembed_kernels.row_cache import RowCache

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.cache_probe import triton_cache_probe  # noqa: E402


@pytest.mark.parametrize("ways", [1, 3, 8, 32])
@pytest.mark.parametrize("slots", [1, 40])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_rows_are_found_where_torch_finds_them(ways: int, slots: int, dtype: torch.dtype) -> None:
    cache = RowCache(90, slots, ways, "lru")
    cache.place(torch.arange(0, 90, 2), torch.ones(45, dtype=torch.int64))
    tags = cache.tags.to(DEVICE)
    for count in (0, 1, 150):
        rows = torch.randint(0, 90, (count,), generator=torch.Generator().manual_seed(count))
        rows = rows.to(dtype).to(DEVICE)
        found = triton_cache_probe(tags, cache.ways, rows)
        assert torch.equal(found, torch_cache_probe(tags, cache.ways, rows))
        assert count < 150 or (found >= 0).any()
