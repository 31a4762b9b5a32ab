"""What rows read under plans: a group alone is the reference for groups side by side."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joint.test_prices import MENU, Group, case, read

from autoembed.joint import plan_reader
from autoembed.joint.plan_reader import PlanReader

GROUPS = [Group(0, 1, 300), Group(1, 0, 1), Group(0, 300, 900), Group(1, 5, 61)]  # in no order, with gaps
ROWS = torch.cat([torch.tensor([0, 1, 299, 300, 301, 899, 900, 903, 905]), torch.arange(910, 961, 3)])


@pytest.mark.parametrize("together", [1, 350, 1 << 16])
def test_groups_side_by_side_read_what_each_reads_alone(together, monkeypatch):
    monkeypatch.setattr(plan_reader, "TOGETHER", together)
    weight, sensitivity = case((900, 61))
    plans = torch.randint(len(MENU), (30, len(GROUPS)), generator=torch.Generator().manual_seed(0))
    reader = PlanReader(weight, sensitivity, GROUPS)
    for _ in range(2):  # the second time from what it keeps of the first
        found = reader.read(MENU, plans, ROWS)
        for plan, vectors in zip(plans, found, strict=True):
            table = weight.clone()
            for group, choice in zip(GROUPS, plan.tolist(), strict=True):
                first = (0, 900)[group.field]
                alone = read(weight, sensitivity, group, MENU[choice])
                table[first + group.start : first + group.stop] = alone
            assert torch.equal(vectors, table[ROWS])


@given(st.lists(st.integers(0, 960), unique=True, max_size=40), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_rows_that_are_asked_for_read_what_all_rows_read(rows, seed):
    weight, sensitivity = case((900, 61))
    plans = torch.randint(len(MENU), (3, len(GROUPS)), generator=torch.Generator().manual_seed(seed))
    reader = PlanReader(weight, sensitivity, GROUPS)
    every = reader.read(MENU, plans, torch.arange(961))
    asked = torch.tensor(sorted(rows), dtype=torch.int64)
    assert torch.equal(reader.read(MENU, plans, asked), every[:, asked])


def test_the_table_is_left_as_it_was():
    weight, sensitivity = case((900, 61))
    before = weight.clone(), sensitivity.second.clone()
    plans = torch.arange(len(MENU)).unsqueeze(1).expand(-1, len(GROUPS))
    PlanReader(weight, sensitivity, GROUPS).read(MENU, plans, torch.arange(961)).fill_(7.0)
    assert torch.equal(weight, before[0]) and torch.equal(sensitivity.second, before[1])
