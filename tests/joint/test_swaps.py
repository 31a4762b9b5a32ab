"""Measured swaps: only what a swap changes is run again, and the result is that of running all."""

from dataclasses import dataclass

import pytest
import torch

from autoembed.data.batch import Bag, Batch
from autoembed.joint import swaps as swaps_file
from autoembed.joint.swaps import HeldOut
from autoembed.models import ModelConfig, build_network

FIRST_ROWS, ROWS, DIM = (0, 5), 12, 3


@dataclass(frozen=True)
class Group:
    field: int
    start: int
    stop: int


def batches(pooling: str | None) -> list[Batch]:
    generator = torch.Generator().manual_seed(2)
    found = []
    for size in (9, 1, 6):
        ids = torch.stack([torch.randint(n, (size,), generator=generator) for n in (5, 7)], 1)
        bags = {}
        if pooling:
            ids[:, 1] = 0
            lengths = torch.arange(size) % 4
            offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
            bags = {1: Bag(torch.randint(7, (int(lengths.sum()),), generator=generator), offsets, pooling)}
        found.append(Batch(torch.zeros(size), torch.randn(size, 1, generator=generator), ids, bags))
    return found


def held_out(pooling: str | None = None, **settings: int) -> HeldOut:
    network = build_network(
        ModelConfig(name="dlrm", dim=DIM, hidden=(7,), batch_norm=True),
        2,
        1,
        torch.Generator().manual_seed(1),
    )
    weight = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(3))
    return HeldOut(network, weight, FIRST_ROWS, batches(pooling), **settings)


@pytest.mark.parametrize("together", [1, 3, 8192])
@pytest.mark.parametrize("pooling", [None, "sum", "mean"])
def test_swaps_equal_the_whole_table_with_the_group_swapped(pooling, together, monkeypatch):
    held = held_out(pooling)
    monkeypatch.setattr(swaps_file, "_BATCH", together)
    groups = (Group(0, 0, 5), Group(0, 2, 3), Group(1, 0, 1), Group(1, 1, 7))
    read = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(4))
    expected = []
    for group in groups:
        weight = held.weight.clone()
        rows = slice(FIRST_ROWS[group.field] + group.start, FIRST_ROWS[group.field] + group.stop)
        weight[rows] = read[rows]
        expected.append(held.table(weight[held.rows]))
    found = held.swaps(groups, read[held.rows])
    assert [m.increase for m in found] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert min(expected) > 0.0
    assert found[0].examples == 16


def test_other_groups_are_not_taken_for_those_of_the_last_call():
    held, groups = held_out(), [Group(0, 0, 5)]
    read = torch.randn(len(held.rows), DIM, generator=torch.Generator().manual_seed(4))
    (alone,) = held.swaps(groups, read)
    groups.append(Group(1, 1, 7))
    assert held.swaps(groups, read) == [alone, *held_out().swaps(groups[1:], read)]
    assert held.swaps([], read) == []


def test_nothing_changed_costs_nothing():
    held = held_out()
    now = held.weight[held.rows]
    assert held.table(now) == pytest.approx(0.0, abs=1e-7)
    assert held.swaps([Group(1, 0, 7)], now)[0].increase == pytest.approx(0.0, abs=1e-7)


def test_a_group_that_nobody_looks_up_costs_nothing():
    held = held_out(max_examples=10)
    assert held.examples == 10
    found = held.swaps([Group(0, 5, 5)], torch.zeros(len(held.rows), DIM))
    assert (found[0].increase, found[0].examples) == (0.0, 0)


def test_no_held_out_example_is_refused():
    with pytest.raises(ValueError, match="no held-out example"):
        HeldOut(torch.nn.Identity(), torch.zeros(2, 2), (0,), [])


def test_other_groups_of_the_same_number_are_not_taken_for_those_of_the_last_call():
    held = held_out()
    read = torch.randn(len(held.rows), 3, generator=torch.Generator().manual_seed(4))
    held.swaps([Group(0, 0, 5)], read)
    other = [Group(1, 1, 7)]
    assert held.swaps(other, read) == held_out().swaps(other, read)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_in_the_mode_that_it_was_in(training):
    held = held_out()
    held.network.train(training)
    read = torch.zeros(len(held.rows), 3)
    held.swaps([Group(0, 0, 5)], read)
    held.table(read)
    assert all(module.training is training for module in held.network.modules())
