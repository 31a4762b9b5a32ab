"""Signs that halve are the mid-rise grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.settings import all_rows, spec, stats

from autoembed.methods import make_method
from autoembed.methods.bebr import binarized
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.packed import PackedTable
from autoembed_kernels.lsq import Grid, fake_quantize, grid_table
from autoembed_kernels.row_update import RowOptimizer


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
