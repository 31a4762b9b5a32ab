"""MPE under a budget: it holds whatever was learned, and the multiplier drives the bytes to it."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from methods.settings import spec

from autoembed.methods import make_method
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.mpe_budget import WARM_STEPS, MpeBudgetTable
from autoembed.methods.plans import fields_bytes, stored_plan
from autoembed.plan import plan_bytes
from autoembed_kernels.row_update import RowOptimizer


def table(ratio: float = 0.3, groups: int = 16) -> MpeBudgetTable:
    method = make_method("mpe_budget", {"ratio": ratio, "groups": groups})
    made = method.table(spec(), torch.Generator().manual_seed(1), RowOptimizer("adam"))
    assert isinstance(made, MpeBudgetTable)
    return made


@example(seed=0, ratio=0.25, groups=17, spread=1.0)  # a step fits once others made neighbours agree
@given(st.integers(0, 10_000), st.floats(0.15, 0.5), st.integers(1, 40), st.floats(0.01, 100.0))
@settings(deadline=None, max_examples=40)
def test_the_budget_holds_whatever_the_mixture_says(
    seed: int, ratio: float, groups: int, spread: float
) -> None:
    made = table(ratio, groups)
    with torch.no_grad():
        made.gamma.copy_(
            torch.randn(made.gamma.shape, generator=torch.Generator().manual_seed(seed)) * spread
        )
    chosen = made.chosen_bits()
    made.settle()
    assert plan_bytes(made.plan()).total <= made.budget
    widths = made.bits.numpy().astype(np.int64)
    for group in np.flatnonzero(chosen < widths.max()):
        wider = chosen.copy()
        wider[group] = widths[widths > chosen[group]].min()
        fields = made.groups.fields(made.spec, wider)
        assert fields_bytes(made.spec, fields) > made.budget, "a step up still fits"


def test_with_room_for_all_every_group_gets_the_largest_width() -> None:
    made = table(ratio=0.5, groups=4)
    assert set(made.chosen_bits().tolist()) == {6}


def test_the_least_wanted_bytes_go_first() -> None:
    made = table(ratio=0.125, groups=4)
    assert made.chosen_bits().tolist() == [2, 2, 2, 4], "shares that are equal say nothing"
    with torch.no_grad():
        rises = torch.arange(made.gamma.shape[1], dtype=torch.float32)
        made.gamma.copy_(rises)  # every group wants 6 bits, but for the rarest, which wants none
        made.gamma[0] = -rises
    assert made.chosen_bits().tolist() == [0, 3, 3, 4]


def test_groups_that_the_mixture_pruned_come_back_where_the_budget_has_room() -> None:
    made = table(ratio=0.2, groups=16)
    with torch.no_grad():
        made.gamma.zero_()[:, 0] = 50.0  # all groups want 0 bits
    bits = made.chosen_bits()
    assert bits.max() == 6
    assert (np.diff(bits[made.groups.relative_counts.argsort(kind="stable")]) >= 0).all()


def test_a_head_that_the_mixture_pruned_wins_its_bits_from_rarer_groups_that_it_kept() -> None:
    made = table(ratio=0.1, groups=16)
    order = made.groups.relative_counts.argsort(kind="stable")
    with torch.no_grad():
        made.gamma.zero_()[:, -1] = (
            50.0  # every group wants 6 bits, but for the most frequent, which want none
        )
        made.gamma[order[-3:]] = 0.0
        made.gamma[order[-3:], 0] = 50.0
    bits = made.chosen_bits()
    counts = made.groups.relative_counts
    assert counts[order[-3]] > 8 * counts[order[0]]
    assert bits[order[-3:]].min() > 0


def warmed(made: MpeBudgetTable) -> MpeBudgetTable:
    made.after_step(WARM_STEPS)
    return made


def test_the_multiplier_finds_the_price_that_a_task_pays_for_bytes() -> None:
    made = warmed(table(ratio=0.2, groups=8))
    gamma = [made.gamma]
    optimizer = torch.optim.Adam(gamma, lr=2e-3)
    for step in range(WARM_STEPS + 1, WARM_STEPS + 3001):
        optimizer.zero_grad()
        worth = (made.mixture() @ made.bits * made.pressure).sum()  # one more budget of bytes saves 0.3
        penalty = made.penalty()
        assert penalty is not None
        (penalty - 0.3 * worth).backward()
        optimizer.step()
        made.after_step(step)
    assert made.multiplier == pytest.approx(0.3, rel=0.2)
    assert abs(made.excess().item()) < 0.05


def test_shares_stay_equal_and_free_until_rows_have_learned_something() -> None:
    made = table(ratio=0.1)
    assert made.penalty() is None and not made.mixture().requires_grad
    penalty = warmed(made).penalty()
    assert penalty is not None and made.mixture().requires_grad
    (gradient,) = torch.autograd.grad(penalty, made.gamma)
    pushed = gradient.abs().sum(1)
    assert pushed[0] > pushed[-1], "rare groups, which come first, are pushed more"


def test_where_the_mixture_says_nothing_rare_groups_give_their_bits_first() -> None:
    bits = table(ratio=0.1, groups=16).chosen_bits()
    counts = table(ratio=0.1, groups=16).groups.relative_counts
    assert bits.min() < bits.max() and bits[counts.argmax()] == bits.max()
    assert (np.diff(bits[counts.argsort(kind="stable")]) >= 0).all()


def test_expected_bytes_are_those_of_the_rows() -> None:
    made = table(ratio=0.3, groups=8)
    with torch.no_grad():
        made.gamma.zero_()[:, 2] = 50.0
    bits = np.full(made.groups.count, int(made.bits[2]))
    packed = plan_bytes(stored_plan(made.spec.profile, made.groups.fields(made.spec, bits)))
    room = made.budget - packed.total + packed.payload
    assert bits[0] == 2
    assert (made.excess().item() + 1) * room == pytest.approx(packed.payload, rel=0.1)


def test_a_budget_below_the_empty_file_is_refused_with_the_number() -> None:
    method = make_method("mpe_budget", {"ratio": 0.001})
    assert FullPrecision().footprint(spec()).high_bytes * 0.001 < 100
    with pytest.raises(ValueError, match="without a row the file takes"):
        method.footprint(spec())
