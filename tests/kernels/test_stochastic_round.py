import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.philox import row_chances
from autoembed_kernels.stochastic_round import reference, stochastic_codes, stochastic_round

DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
FLOATS = st.floats(-60000, 60000, width=32).filter(lambda x: x == 0 or abs(x) > 1e-30)


def neighbours(value: float, dtype: torch.dtype) -> tuple[float, float]:
    """The largest 16-bit float up to `value` and the smallest from it on, found by their codes."""
    nearest = torch.tensor(value).to(dtype)
    code = int(nearest.view(torch.int16)) & 0xFFFF
    order = code if code < 0x8000 else 0x8000 - code
    floats = []
    for near in (order - 1, order, order + 1):
        bits = near if near >= 0 else 0x8000 - near
        floats.append(float(torch.from_numpy(np.array([bits], dtype=np.uint16).view(np.int16)).view(dtype)))
    return max(f for f in floats if f <= value), min(f for f in floats if f >= value)


@DTYPES
@given(value=FLOATS, chance=st.integers(0, 2**16 - 1))
@settings(deadline=None, max_examples=50)
def test_a_value_equals_the_reference_and_never_leaves_its_neighbours(
    dtype: torch.dtype, value: float, chance: int
) -> None:
    rounded = float(stochastic_round(torch.tensor([value]), torch.tensor([chance]), dtype))
    assert rounded == reference(value, chance, dtype)
    assert rounded in neighbours(value, dtype)


@DTYPES
@pytest.mark.parametrize("value", [0.1, -0.1, 3.3e-5, -3e-6, 1e-7, 1.0001, -777.77, 2.0**-14 * 1.0003])
def test_the_mean_is_the_value_within_four_standard_errors(dtype: torch.dtype, value: float) -> None:
    count = 40_000
    chances = row_chances(7, 1, torch.arange(count // 4), 4).flatten()
    exact = float(torch.tensor(value))
    rounded = stochastic_round(torch.full((count,), exact), chances, dtype).double()
    down, up = neighbours(exact, dtype)
    assert set(rounded.tolist()) <= {down, up}
    chance = (exact - down) / (up - down) if up > down else 0.0
    error = (up - down) * math.sqrt(chance * (1 - chance) / count)
    assert abs(rounded.mean().item() - exact) <= 4 * error


@DTYPES
def test_values_that_sixteen_bits_hold_are_never_changed(dtype: torch.dtype) -> None:
    codes = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    exact = codes[torch.isfinite(codes)].float()
    for chance in (0, 12345, 2**16 - 1):
        rounded = stochastic_round(exact, torch.full(exact.shape, chance), dtype)
        assert torch.equal(rounded.float(), exact)


@DTYPES
def test_what_is_not_finite_stays_so(dtype: torch.dtype) -> None:
    values = torch.tensor([math.nan, math.inf, -math.inf])
    rounded = stochastic_round(values, torch.full((3,), 2**16 - 1), dtype)
    assert rounded.isnan().tolist() == [True, False, False]
    assert rounded[1:].tolist() == [math.inf, -math.inf]


@pytest.mark.parametrize("value", [0.0371, -0.0371, 0.4999, -1e-5])
def test_the_mean_of_codes_is_the_value_within_four_standard_errors(value: float) -> None:
    count, step = 40_000, 1 / 128
    chances = row_chances(3, 1, torch.arange(count), 1)
    exact = float(torch.tensor(value))
    codes = stochastic_codes(torch.full((count, 1), exact), torch.full((count, 1), step), chances, -127, 127)
    down = math.floor(exact / step)
    assert set(codes.flatten().tolist()) <= {down, down + 1}
    chance = exact / step - down
    error = step * math.sqrt(chance * (1 - chance) / count)
    assert abs(codes.double().mean().item() * step - exact) <= 4 * error


def test_whole_codes_are_never_changed_and_none_leaves_the_range() -> None:
    whole = torch.arange(-127, 128).float().unsqueeze(0)
    steps = torch.tensor([[0.5]])
    for chance in (0, 12345, 2**16 - 1):
        chances = torch.full(whole.shape, chance)
        assert torch.equal(stochastic_codes(whole * 0.5, steps, chances, -127, 127).float(), whole)
        assert int(stochastic_codes(whole * 9, steps, chances, -127, 127).abs().max()) == 127
