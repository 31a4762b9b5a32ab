import numpy as np
import pytest
import torch
from methods.settings import DIM, all_rows, batch, spec, stats

from autoembed.lookup import look_up
from autoembed.methods.base import TableSpec, initial_rows
from autoembed.methods.fixed_plan import FixedPlanTable
from autoembed.methods.plans import stored_plan, stored_segment
from autoembed.methods.row_address import RowAddress
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Segment, Sharing
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.row_update import RowOptimizer

MIXED = (
    FieldPlan(
        "field_0",
        200,
        DIM,
        (
            stored_segment(0, 1, DIM, 32, 0),
            stored_segment(1, 20, DIM, 8, 0),
            stored_segment(20, 50, DIM, 16, 0),
            stored_segment(50, 120, DIM, 2, 1, stored_rows=7),
            Segment(120, 180, Sharing.OOV),
            Segment(180, 200, Sharing.ZERO),
        ),
    ),
    FieldPlan("field_1", 1, DIM, (Segment(0, 1, Sharing.ZERO),)),
    FieldPlan("field_2", 3, DIM, (stored_segment(0, 1, DIM, 4, 2), Segment(1, 3, Sharing.OOV))),
    FieldPlan("field_3", 60, DIM, (stored_segment(0, 60, DIM, 4, 2),)),
)
STORED = 1 + 19 + 30 + 7 + 1 + 60


def mixed_table(profile: str = "packed") -> FixedPlanTable:
    weight = initial_rows(spec(), STORED, torch.Generator().manual_seed(0))
    return FixedPlanTable(spec(profile), MIXED, weight, RowOptimizer("adam"))


def test_addresses_follow_every_kind_of_sharing() -> None:
    address = RowAddress(MIXED)
    zero = STORED
    rows = torch.tensor([0, 1, 19, 20, 49, 50, 119, 120, 179, 180, 199, 200, 201, 202, 203, 204, 263])
    hashed = (50 + row_hash(torch.tensor([50, 119]), 0, 7)).tolist()
    assert address(rows).tolist() == [
        *[0, 1, 19, 20, 49, *hashed, 0, 0, zero, zero],
        *[zero, 57, 57, 57, 58, 117],
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_plan_that_mixes_everything_packs_to_what_was_trained(profile: str) -> None:
    table = mixed_table(profile)
    for seed in range(3):
        table(batch(64, seed)).square().sum().backward()
        table.update(0.05)
    reader = PackedTable(table.pack(), stats().first_rows)
    with torch.no_grad():
        torch.testing.assert_close(reader(all_rows()), table(all_rows()), atol=1e-6, rtol=0)


def test_places_that_are_looked_up_train_the_same_model_as_places_worked_out() -> None:
    packs = []
    for tabulated in (False, True):
        table = mixed_table()
        if tabulated:
            plain = table.training_bytes
            table.tabulate()
            assert table.training_bytes == plain + 8 * (sum(f.rows for f in MIXED) + STORED + 1)
        for seed in range(3):
            table(batch(64, seed)).square().sum().backward()
            table.update(0.05)
        packs.append(table.pack())
    everything = [PackedTable(packed, stats().first_rows)(all_rows()) for packed in packs]
    assert torch.equal(*everything)


def test_rows_that_read_zero_stay_zero_and_pass_no_gradient() -> None:
    table = mixed_table()
    for seed in range(3):
        (table(batch(64, seed)) - 1).square().sum().backward()
        table.update(0.05)
    zero_rows = torch.tensor([180, 199, 200])
    lookup = look_up(all_rows(), table.first_rows)
    values = table.values(lookup)[torch.isin(lookup.rows, zero_rows)]
    assert len(values) > 3 and not values.any()
    assert not table.rows.weight[STORED].any()


def test_an_update_leaves_rows_that_were_not_read_alone() -> None:
    table = mixed_table()
    before = table.rows.weight.clone()
    example = batch(4, seed=0)
    table(example).sum().backward()
    table.update(0.05)
    read = table.address(look_up(example, table.first_rows).rows).unique()
    untouched = torch.ones(len(before), dtype=torch.bool)
    untouched[read] = False
    assert torch.equal(table.rows.weight[untouched], before[untouched])
    assert untouched.sum() > STORED / 2


def test_profiles_with_row_scales_get_no_shared_scales() -> None:
    for profile in PROFILES.values():
        plan = stored_plan(profile, MIXED)
        assert (plan.scale_count == 0) == (profile.row_scale_bytes > 0)


def test_hashed_and_cut_rows_of_a_field_are_counted_in_the_field_not_in_the_segment() -> None:
    fields = (
        FieldPlan(
            "a",
            1000,
            DIM,
            (stored_segment(0, 10, DIM, 32, 0), stored_segment(10, 1000, DIM, 32, 0, stored_rows=99)),
        ),
    )
    rows = torch.arange(1000)
    assert torch.equal(RowAddress(fields)(rows)[10:], 10 + row_hash(rows[10:], 0, 99))


def test_learning_moves_the_steps_of_the_fields_that_were_read_alone() -> None:
    table = mixed_table()
    steps = table.precision.steps
    assert steps is not None
    table(batch(64, 0))[:, 3].square().sum().backward()
    assert steps.grad is not None
    assert np.array_equal(steps.grad.numpy() != 0, [False, False, True])


def test_a_table_of_one_field_and_one_row_trains() -> None:
    only = TableSpec(type(stats())((stats().fields[1],)), DIM, PROFILES["packed"])
    fields = (FieldPlan("field_1", 1, DIM, (stored_segment(0, 1, DIM, 1, 0),)),)
    table = FixedPlanTable(only, fields, torch.ones(1, DIM), RowOptimizer("sgd"))
    assert table.pack().bytes.payload == 1
