"""The planner over the walk: what it keeps from the trunk, and what it does where prices rank poorly."""

import copy

import pytest
import torch
from tiny_data import TinyData, tiny_data

from autoembed.joint import planner as planner_file
from autoembed.joint.additivity import Additivity
from autoembed.joint.choices import small_fields
from autoembed.joint.planner import JointPlanner
from autoembed.joint.trunk import Trunk, train_trunk
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import fields_bytes, uniform_fields
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.training import TrainingConfig

Case = tuple[TinyData, TableSpec, Trunk]


@pytest.fixture(scope="module")
def case() -> Case:
    data, stats = tiny_data(fields=(60, 20))
    model = ModelConfig(name="dlrm", dim=8, hidden=(8,), bottom=(8,))
    training = TrainingConfig(batch_size=256, learning_rate=5e-3, epochs=2, initial_std=0.05)
    trunk = train_trunk(data, stats, model, training, seed=0, device="cpu")
    return data, TableSpec(stats, 8, PROFILES["packed"]), trunk


def budget(spec: TableSpec, ratio: float) -> int:
    return int(fields_bytes(spec, uniform_fields(spec, 32)) / ratio)


def test_a_planner_that_joins_later_plans_as_one_that_was_there_from_the_start(case: Case) -> None:
    data, spec, trunk = case
    later = trunk.rows * 0.8
    network = copy.deepcopy(trunk.network).eval()
    there = JointPlanner(data, spec, trunk, seed=1)
    there(trunk.rows, network, [budget(spec, 2)])
    joins = JointPlanner(data, spec, trunk, seed=1)
    asked = [budget(spec, 6)]
    assert there(later, network, asked) == joins(later, network, asked)
    assert there.last is not None and there.last.rank_correlation > 0.8 and not there.used_fallback


def test_poor_ranks_make_it_measure_every_choice(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    data, spec, trunk = case
    answers = iter([Additivity((1.0, 2.0), (2.0, 1.0), -1.0), Additivity((1.0, 2.0), (1.0, 2.0), 1.0)])
    monkeypatch.setattr(planner_file, "check_additivity", lambda *_: next(answers))
    one = JointPlanner(data, spec, trunk, seed=1)
    network = copy.deepcopy(trunk.network).eval()
    (fields,) = one(trunk.rows, network, [budget(spec, 4)])
    assert fields_bytes(spec, fields) <= budget(spec, 4)
    assert one.used_fallback and one.last is not None and one.last.used_fallback
    assert one.calibration is not None
    measured = (one.calibration.residual != 0).any(0).sum()
    monkeypatch.setattr(planner_file, "check_additivity", lambda *_: Additivity((1.0,), (1.0,), 1.0))
    plain = JointPlanner(data, spec, trunk, seed=1)
    plain(trunk.rows, network, [budget(spec, 4)])
    assert plain.calibration is not None and not plain.used_fallback
    assert measured > (plain.calibration.residual != 0).any(0).sum()


def test_without_enough_validation_examples_plans_are_checked_where_they_were_calibrated(case: Case) -> None:
    data, spec, trunk = case
    held, checked = JointPlanner(data, spec, trunk, seed=1)._held_out(trunk.rows, trunk.network)
    assert held is checked and held.examples == data.rows("valid")
    assert torch.equal(held.targets, checked.targets)


def test_fields_that_no_budget_would_notice_are_left_alone() -> None:
    data, stats = tiny_data(fields=(4000, 3))
    model = ModelConfig(name="dlrm", dim=8, hidden=(8,), bottom=(8,))
    training = TrainingConfig(batch_size=512, learning_rate=5e-3, epochs=1, initial_std=0.05)
    trunk = train_trunk(data, stats, model, training, seed=0, device="cpu")
    spec = TableSpec(stats, 8, PROFILES["packed"])
    network = copy.deepcopy(trunk.network).eval()
    size = stats.fields[1].rows * 8 * 4
    planner = JointPlanner(data, spec, trunk, seed=1)
    (fields,) = planner(trunk.rows, network, [size * 2000, size * 2000])
    assert {segment.precision for segment in fields[1].segments} == {"fp32"}
    other = JointPlanner(data, spec, trunk, seed=1)
    assert small_fields(spec, size * 2000) == {1} and not small_fields(spec, size * 2000 - 1)
    other(trunk.rows, network, [size * 2000 - 1])
    assert other._whole == frozenset()
