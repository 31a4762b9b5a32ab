"""The trunk as a walk writes it down: the same model, and an order of its rows."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_data import TinyData, tiny_data

from autoembed.data.batch import Batch
from autoembed.joint.basis import in_basis
from autoembed.joint.config import JointConfig
from autoembed.joint.planner import JointPlanner
from autoembed.joint.trunk import Trunk, train_trunk
from autoembed.joint.walk import walk
from autoembed.lookup import look_up
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import fields_bytes, uniform_fields
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import Stats
from autoembed.training import TrainingConfig

QUICK = TrainingConfig(batch_size=256, learning_rate=2e-2, epochs=1, initial_std=0.05)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of a few rows have several windows."""
    monkeypatch.setattr("autoembed.joint.order.FIRST", 4)


def logits(trunk: Trunk, stats: Stats, batches: list[Batch]) -> torch.Tensor:
    found = []
    for batch in batches:
        lookup = look_up(batch, torch.tensor(stats.first_rows))
        found.append(trunk.network(batch.dense, lookup.pool(trunk.rows[lookup.rows])))
    return torch.cat(found)


def made(name: Any, dense: int, bag: bool) -> tuple[TinyData, Stats, Trunk]:
    data, stats = tiny_data(rows=1500, fields=(60, 7, 40), dense=dense, bag=bag)
    model = ModelConfig(name=name, dim=6, hidden=(8,), bottom=(8,) if name == "dlrm" and dense else ())
    return data, stats, train_trunk(data, stats, model, QUICK, seed=3, device="cpu")


@pytest.mark.parametrize(
    ("name", "dense", "rotates"),
    [("dnn", 2, True), ("dlrm", 0, True), ("dlrm", 2, False), ("dcnv2", 2, False)],
)
@pytest.mark.parametrize("bag", [False, True])
def test_the_model_written_down_gives_the_logits_of_the_trunk(
    name: str, dense: int, rotates: bool, bag: bool
) -> None:
    data, stats, trunk = made(name, dense, bag)
    before = copy.deepcopy(trunk)
    after, order = in_basis(trunk, data, stats, seed=0)
    batches = list(data.batches("test", 200))
    expected = logits(before, stats, batches)
    # float32 sums of some thirty terms
    torch.testing.assert_close(logits(after, stats, batches), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(after.rows, before.rows) != rotates
    moved = [(rows != range(len(rows))).sum() for rows in order.rows]
    assert moved[0] > 10 and moved[2] > 10 and all(rows[0] == 0 for rows in order.rows)
    places = order.places
    found = logits(after.reordered(order), stats.reordered(order), [places.batch(batch) for batch in batches])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    by_old_rows = logits(after.reordered(order), stats, batches)
    assert (by_old_rows - expected).abs().max() > 1e-2, "the order is not one that changes nothing"


def test_the_same_seed_gives_the_same_basis_and_order() -> None:
    data, stats, trunk = made("dnn", 2, False)
    (one, order), (other, again) = (in_basis(copy.deepcopy(trunk), data, stats, seed=5) for _ in range(2))
    assert torch.equal(one.rows, other.rows)
    assert [rows.tolist() for rows in order.rows] == [rows.tolist() for rows in again.rows]


def test_of_ids_looked_up_as_often_those_that_are_far_from_row_0_stand_first_in_their_window() -> None:
    data, stats, trunk = made("dcnv2", 2, False)
    counts = np.append(stats.fields[0].counts[0], np.full(59, 20))
    stats = replace(stats, fields=(replace(stats.fields[0], counts=counts), *stats.fields[1:]))
    rows = trunk.rows.clone()
    rows[5:15] = rows[0] + 1e-3 * rows[5:15]
    _, order = in_basis(replace(trunk, rows=rows), data, stats, seed=0)
    found = order.rows[0].tolist()
    assert set(found[:5]) == {0, 1, 2, 3, 4}, "a window of 4 rows"
    assert set(found[5:11]) == set(range(15, 21)) and set(found[11:21]) == set(range(5, 15))
    assert set(found[21:]) == set(range(21, 60))


def test_what_the_basis_took_counts_as_the_cost_of_the_first_point() -> None:
    data, stats, trunk = made("dnn", 2, False)
    assert (trunk.basis_seconds, trunk.basis_cpu_seconds) == (0.0, 0.0)
    trunk, _ = in_basis(trunk, data, stats, seed=0)
    assert 0 < trunk.basis_seconds < 60 and 0 < trunk.basis_cpu_seconds < 60
    spec = TableSpec(stats, 6, PROFILES["packed"])
    full = fields_bytes(spec, uniform_fields(spec, 32))
    long = replace(trunk, basis_seconds=1000.0, basis_cpu_seconds=2000.0)
    model = ModelConfig(name="dnn", dim=6, hidden=(8,))
    planner = JointPlanner(data, spec, long, 1)
    given = (data, spec, model, long, [full // 2, full // 5], planner, JointConfig(fine_tune=0.0))
    first, second = walk(*given, seed=1, device="cpu")
    assert 1000 < first.seconds < 1500 and 2000 < first.cpu_seconds < 2500
    assert second.seconds < 500 and second.cpu_seconds < 500


def test_without_an_order_rows_are_rotated_alone() -> None:
    data, stats, trunk = made("dnn", 2, False)
    rotated, order = in_basis(trunk, data, stats, seed=0, ordered=False)
    assert order is None and not torch.equal(rotated.rows, trunk.rows)
