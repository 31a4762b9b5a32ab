"""Signs that halve are the mid-rise grid."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.settings import all_rows, spec, stats

from autoembed.methods import make_method
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES
from autoembed_kernels.lsq import Grid, fake_quantize, grid_table
from autoembed_kernels.row_update import RowOptimizer


def binarized(values: torch.Tensor, scale: float, bits: int) -> torch.Tensor:
    """The recursion, sign by sign: what the codes of the grid must equal."""
    total = torch.zeros_like(values)
    for _ in range(bits):
        total = total + torch.where(values >= total, scale, -scale)
        scale /= 2
    return total


@given(bits=st.integers(1, 4), scale=st.floats(0.01, 10.0), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_the_recursion_ends_at_the_nearest_level_of_the_mid_rise_grid(
    bits: int, scale: float, seed: int
) -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 * scale
    step = torch.tensor([scale * 2.0 ** (2 - bits)])
    table = grid_table([Grid(bits, mid_rise=True)])
    own = torch.zeros(5, dtype=torch.int64)
    found = fake_quantize(values.float(), step, table, torch.ones(1), own, None)
    wanted = binarized(values, scale, bits)
    between = ((values / float(step)) % 1).minimum(
        1 - (values / float(step)) % 1
    ) < 1e-4  # a tie may go either way
    close = (found.double() - wanted).abs() <= 1e-5 * scale
    assert (close | between).all()


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_what_is_packed_is_the_recursion_of_the_rows(bits: int) -> None:
    made = make_method("bebr", {"bits": bits})
    table = made.table(spec(), torch.Generator().manual_seed(1), RowOptimizer("sgd"))
    assert isinstance(table, FixedPlanTable) and table.precision.steps is not None
    read = PackedTable(table.pack(), stats().first_rows)(all_rows())[:, 0]
    scale = table.precision.steps[0].abs().item() / 2.0 ** (2 - bits)
    wanted = binarized(table.rows.weight[: stats().fields[0].rows].detach(), scale, bits)
    torch.testing.assert_close(read, wanted, atol=1e-6, rtol=1e-5)
    assert len(read.unique().round(decimals=6).unique()) <= 2**bits


def signs_of(bits: int) -> torch.Tensor:
    """All rows of signs, (2^bits, bits)."""
    return torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * bits).view(-1, bits)


def error_of(values: torch.Tensor, scales: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Mean square error of the nearest sums of signs, and the signs (N, bits)."""
    signs = signs_of(len(scales))
    nearest = (values.unsqueeze(1) - signs @ scales).abs().argmin(1)
    return float((values - (signs @ scales)[nearest]).square().mean()), signs[nearest]


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_scales_that_halve_cost_little_of_normal_values(bits: int) -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    halves = 0.5 ** torch.arange(bits)
    halving, scale = min((error_of(values, s * halves)[0], s) for s in torch.linspace(0.5, 2.5, 81).tolist())
    scales = scale * halves
    for _ in range(60):  # nearest signs, then the scales of least error for them
        free, signs = error_of(values, scales)
        scales = torch.linalg.lstsq(signs, values.unsqueeze(1)).solution.squeeze(1)
    assert free <= halving <= 1.03 * free


@pytest.mark.parametrize("name", ["frequency_cut", "hashing", "cafe_offline"])
@pytest.mark.parametrize("bits", [3, 4])
def test_signs_are_a_grid_of_methods_that_cut_and_share(name: str, bits: int) -> None:
    """Codes without a zero: all values are odd multiples of half a step."""
    plain, signs = (make_method(name, {"bits": bits, "grid": grid}) for grid in ("steps", "signs"))
    assert plain.footprint(spec()) == signs.footprint(spec())
    table = signs.table(spec(), torch.Generator().manual_seed(1), RowOptimizer("sgd"))
    assert all(s.mid_rise for field in table.plan().fields for s in field.segments if s.is_integer)
    read = PackedTable(table.pack(), stats().first_rows)(all_rows())[:, 0]
    assert isinstance(table, FixedPlanTable) and table.precision.steps is not None
    codes = read / table.precision.steps[0].abs().detach()
    torch.testing.assert_close(codes % 1, torch.full_like(codes, 0.5), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="cannot store the bias"):
        signs.footprint(replace(spec(), profile=PROFILES["fbgemm-cpu"]))
