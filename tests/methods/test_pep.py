"""PEP in groups: what thresholds cut, that the budget always holds, and the lottery ticket."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.settings import all_rows, batch, spec

from autoembed.methods import make_method
from autoembed.methods.base import initial_rows
from autoembed.methods.pep import SPEED, Pep, PepTable
from autoembed.plan import plan_bytes
from autoembed_kernels.row_update import RowOptimizer


def table(method: Pep, profile: str = "packed", seed: int = 3) -> PepTable:
    return method.table(spec(profile), torch.Generator().manual_seed(seed), RowOptimizer("adam"))


def set_thresholds(made: PepTable, thresholds: torch.Tensor) -> None:
    with torch.no_grad():
        made.gates.copy_(SPEED * torch.logit(thresholds))


def test_a_threshold_shrinks_its_cell_and_no_dimension_outlives_the_one_before() -> None:
    made = table(Pep(keep=1.0))
    thresholds = torch.full_like(made.spread, 1e-9)
    thresholds[0, 2] = made.spread[0, 2] / 4
    thresholds[1, 3] = made.spread[1, 3] * 1.01
    set_thresholds(made, thresholds)
    left = made.left()
    torch.testing.assert_close(left[0], torch.tensor([1.0, 1.0, *[0.75] * 6]), atol=1e-5, rtol=0)
    torch.testing.assert_close(left[1], torch.tensor([1.0, 1.0, 1.0, *[0.0] * 5]), atol=1e-5, rtol=0)
    assert made.rows is not None
    row = made.rows.weight[0]  # the only row of the first group
    torch.testing.assert_close(made(all_rows())[0, 0], row * left[0])


def test_at_the_start_nothing_is_cut() -> None:
    made = table(Pep(keep=1.0))
    read = made.spread > 0  # rows that train never reads start at zero
    assert (made.left()[read] > 0.99).all()
    assert set(made.chosen_dims().tolist()) == {8}


@given(st.integers(0, 10_000), st.floats(0.11, 1.0), st.floats(0.01, 20.0), st.sampled_from((2, 4, 16, 32)))
@settings(deadline=None, max_examples=40)
def test_the_budget_holds_whatever_the_thresholds_say(
    seed: int, keep: float, spread: float, bits: int
) -> None:
    method = Pep(keep=keep, bits=bits)
    made = table(method)
    with torch.no_grad():
        noise = torch.randn(made.gates.shape, generator=torch.Generator().manual_seed(seed))
        made.gates.add_(noise * spread * SPEED)
    made.settle()
    assert plan_bytes(made.plan()).total <= method.budget(spec())


def test_the_plan_is_the_first_that_fits_as_thresholds_rise_together() -> None:
    method = Pep(keep=0.5)
    made = table(method)
    with torch.no_grad():
        made.gates.add_(SPEED * torch.arange(8.0))  # later dimensions are cut first, by clear margins
    made.gates.requires_grad_(False)
    made.spread.fill_(0.1)
    made.measure = lambda: None  # type: ignore[method-assign]
    dims = made.chosen_dims()
    assert set(dims.tolist()) == {3}  # 4 of 8 would be half of the values and a directory above the half
    assert made._bytes(dims) <= method.budget(spec()) < made._bytes(dims + 1)


def test_the_price_cuts_until_the_file_fits_and_stops_there() -> None:
    made = table(Pep(keep=0.4, price=0.1))
    optimizer = torch.optim.Adam([made.gates], lr=0.004)
    for step in range(1, 401):
        optimizer.zero_grad()
        penalty = made.penalty()
        if penalty is None:
            break
        penalty.backward()
        optimizer.step()
        made.after_step(step)
    assert made.decided is not None and made.price > 0.1
    decided = made.decided.copy()
    made.after_step(step + 20)
    assert np.array_equal(made.decided, decided) and np.array_equal(made.chosen_dims(), decided)


def test_the_push_is_the_share_of_values_times_the_price() -> None:
    made = table(Pep(keep=0.4, price=0.1))
    penalty = made.penalty()
    assert penalty is not None
    (gradient,) = torch.autograd.grad(penalty, made.gates)
    sizes = torch.from_numpy(np.diff(made.groups.starts)).float()
    expected = -0.1 / SPEED * sizes / sizes.sum() / 8
    torch.testing.assert_close(gradient, expected.unsqueeze(1).expand_as(gradient))


def test_retraining_restarts_kept_prefixes_from_the_first_rows() -> None:
    made = table(Pep(keep=0.3))
    made(batch(64, seed=1)).sum().backward()
    made.update(0.1)
    thresholds = torch.full_like(made.spread, 1e-9)
    thresholds[-3:] = made.spread[-3:] * 2.0  # the tail of the last field goes
    thresholds[:, 5:] = made.spread[:, 5:] * 2.0
    set_thresholds(made, thresholds)
    assert made.settle() and not made.settle() and made.penalty() is None
    first = initial_rows(spec(), spec().stats.rows, torch.Generator().manual_seed(3))
    read = made(all_rows())[:, 0]  # the 200 rows of the largest field
    kept = read != 0
    assert kept.any() and not kept.all()
    torch.testing.assert_close(read, torch.where(kept, first[:200], 0.0))
    assert (kept.long().diff(dim=1) <= 0).all()  # prefixes


def test_a_table_whose_thresholds_move_cannot_be_packed() -> None:
    with pytest.raises(ValueError, match="call settle"):
        table(Pep(keep=0.3)).pack()


def test_a_budget_below_the_empty_file_is_refused_with_the_number() -> None:
    with pytest.raises(ValueError, match="without a value the file takes"):
        make_method("pep", {"keep": 0.001}).footprint(spec())
