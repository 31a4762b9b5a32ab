"""Random numbers, casts by chance and bit packing in Triton against torch, bit for bit.

In Triton's interpreter, or on a GPU where there is one.
"""

import math
import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from autoembed_kernels.bitpack import packed_row_bytes, torch_pack_bits, torch_unpack_bits
from autoembed_kernels.philox import reference, torch_row_chances
from autoembed_kernels.stochastic_round import torch_stochastic_codes, torch_stochastic_round

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.bitpack import triton_pack_bits, triton_unpack_bits  # noqa: E402
from autoembed_kernels.gpu.philox import triton_row_chances  # noqa: E402
from autoembed_kernels.gpu.stochastic_round import (  # noqa: E402
    triton_stochastic_codes,
    triton_stochastic_round,
)

# the interpreter takes tens of milliseconds for each example, and shrinking would try hundreds
few = settings(deadline=None, max_examples=15, phases=[Phase.explicit, Phase.generate])
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**40), max_size=9),
    st.integers(1, 19),
)
@few
def test_chances_are_those_of_torch_and_of_the_exact_integers(
    seed: int, step: int, rows: list[int], columns: int
) -> None:
    given_rows = torch.tensor(rows, dtype=torch.int64, device=DEVICE)
    chances = triton_row_chances(seed, step, given_rows, columns)
    assert torch.equal(chances, torch_row_chances(seed, step, given_rows, columns))
    for row, drawn in zip(rows[:2], chances.tolist(), strict=False):
        key = (seed & 0xFFFFFFFF, seed >> 32)
        block = reference((0, row & 0xFFFFFFFF, row >> 32, step), key)
        halves = [half for word in block for half in (word % 2**16, word // 2**16)]
        assert drawn[:8] == halves[:columns]


def values_of_all_sizes(count: int, seed: int) -> torch.Tensor:
    """float32 from far below the smallest float16 to above the largest, zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(-40, 18, (count,), generator=generator)
    values = torch.randn(count, generator=generator) * 2.0**sizes
    values[::7] = 0.0
    return values.to(DEVICE)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of numpy: too large for a float16
@DTYPES
@given(st.integers(0, 2000), st.integers(0, 2**32))
@few
def test_sixteen_bits_are_those_of_torch(dtype: torch.dtype, count: int, seed: int) -> None:
    values = values_of_all_sizes(count, seed)
    chances = torch_row_chances(seed, 1, torch.arange(count, device=DEVICE), 1).flatten()
    found = triton_stochastic_round(values, chances, dtype)
    expected = torch_stochastic_round(values, chances, dtype)
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


@DTYPES
def test_what_is_not_finite_stays_so_and_what_fits_is_not_changed(dtype: torch.dtype) -> None:
    chances = torch.full((3,), 2**16 - 1, device=DEVICE)
    odd = triton_stochastic_round(
        torch.tensor([math.nan, math.inf, -math.inf], device=DEVICE), chances, dtype
    )
    assert odd.isnan().tolist() == [True, False, False]
    assert odd[1:].tolist() == [math.inf, -math.inf]
    codes = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    exact = codes[torch.isfinite(codes)].float().to(DEVICE)
    for chance in (0, 2**16 - 1):
        kept = triton_stochastic_round(exact, torch.full(exact.shape, chance, device=DEVICE), dtype)
        assert torch.equal(kept.float(), exact)


@given(st.integers(0, 9), st.integers(1, 19), st.integers(0, 2**32))
@few
def test_codes_are_those_of_torch(count: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, width, generator=generator).to(DEVICE)
    steps = (torch.rand(count, 1, generator=generator) * 0.05 + 1e-3).to(DEVICE)
    chances = torch_row_chances(seed, 2, torch.arange(count, device=DEVICE), width)
    found = triton_stochastic_codes(values, steps, chances, -127, 127)
    assert torch.equal(found, torch_stochastic_codes(values, steps, chances, -127, 127))


@given(st.integers(0, 30), st.integers(1, 70), st.integers(1, 8), st.integers(0, 2**32))
@few
def test_packed_bytes_are_those_of_torch_and_come_back(rows: int, dim: int, bits: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (rows, dim), generator=generator, dtype=torch.uint8).to(DEVICE)
    packed = triton_pack_bits(codes, bits)
    assert packed.shape == (rows, packed_row_bytes(dim, bits))
    assert torch.equal(packed, torch_pack_bits(codes, bits))
    assert torch.equal(triton_unpack_bits(packed, dim, bits), codes)
    assert torch.equal(triton_unpack_bits(packed, dim, bits), torch_unpack_bits(packed, dim, bits))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_and_memory_order_packs_alike(dtype: torch.dtype) -> None:
    codes = (torch.arange(7 * 12, device=DEVICE).view(12, 7) % 32).T
    assert torch.equal(triton_pack_bits(codes.to(dtype), 5), torch_pack_bits(codes, 5))
