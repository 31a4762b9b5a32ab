"""The planner over the walk: what it keeps from the trunk, and what it does where prices rank poorly."""

import copy

import pytest
import torch
from tiny_data import TinyData, tiny_data

from autoembed.joint import planner as planner_file
from autoembed.joint.additivity import Additivity
from autoembed.joint.choices import small_fields
from autoembed.joint.config import JointConfig
from autoembed.joint.explain import explained
from autoembed.joint.planner import JointPlanner
from autoembed.joint.trunk import Trunk, train_trunk
from autoembed.joint.walk import Point, retrain, walk
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Fields, fields_bytes, numbered_fields, stored_plan, uniform_fields
from autoembed.models import ModelConfig
from autoembed.plan import (
    PROFILES,
    Segment,
    Sharing,
    directory_bytes,
    plan_bytes,
    segment_bytes,
    segment_index_bytes,
)
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


@pytest.fixture(scope="module")
def tailed() -> Case:
    """Two fields with a long tail, whose plans read codebooks."""
    data, stats = tiny_data(rows=3000, fields=(6000, 2500, 12))
    model = ModelConfig(name="dlrm", dim=8, hidden=(8,), bottom=(8,))
    training = TrainingConfig(batch_size=256, learning_rate=5e-3, epochs=2, initial_std=0.05)
    trunk = train_trunk(data, stats, model, training, seed=0, device="cpu")
    return data, TableSpec(stats, 8, PROFILES["packed"]), trunk


def coded(fields: Fields) -> dict[tuple[int, int], Segment]:
    return {
        (number, s.start): s
        for number, field in enumerate(fields)
        for s in field.segments
        if s.sharing is Sharing.CODEBOOK
    }


def test_every_codebook_of_a_plan_has_codes_and_they_are_kept_while_weights_stand(tailed: Case) -> None:
    data, spec, trunk = tailed
    planner = JointPlanner(data, spec, trunk, seed=1)
    network = copy.deepcopy(trunk.network).eval()
    (fields,) = planner(trunk.rows, network, [budget(spec, 48)])
    assert planner.last is not None
    before = planner.last.seconds
    segments, codes = coded(fields), planner.codes(trunk.rows, fields)
    assert segments and codes.keys() == segments.keys() and planner.last.seconds >= before
    for place, own in codes.items():
        assert own.dtype == torch.uint8 and own.shape == (segments[place].rows,)
        assert int(own.max()) < segments[place].stored_rows
    again = planner.codes(trunk.rows, fields)
    assert all(again[place] is own for place, own in codes.items())
    planner(trunk.rows * 0.9, network, [budget(spec, 48)])
    with pytest.raises(ValueError, match="at the weights of the last plan"):
        planner.codes(trunk.rows, fields)


def test_what_is_explained_of_a_field_are_its_bytes_in_the_file(tailed: Case) -> None:
    data, spec, trunk = tailed
    planner = JointPlanner(data, spec, trunk, seed=1)
    (fields,) = planner(trunk.rows, copy.deepcopy(trunk.network).eval(), [budget(spec, 48)])
    assert coded(fields) and planner.last is not None
    told = explained(planner.last, spec)["fields"]
    plan = stored_plan(spec.profile, fields)
    for number, field in enumerate(plan.fields):
        size = sum(segment_bytes(spec.profile, s) + segment_index_bytes(s) for s in field.segments)
        rows = sum(s.stored_rows for s in field.segments if s.sharing is not Sharing.TAIL)
        assert (told[number]["bytes"], told[number]["stored_rows"]) == (size, rows)
    size = plan_bytes(plan)
    assert sum(field["bytes"] for field in told) == size.payload + size.index - directory_bytes(plan)


@pytest.mark.parametrize("after", [1, 2])
def test_a_walk_with_codebooks_cut_off_goes_on_as_if_it_had_not_been(tailed: Case, tmp_path, after) -> None:
    data, spec, trunk = tailed
    model = ModelConfig(name="dlrm", dim=8, hidden=(8,), bottom=(8,))
    budgets = [budget(spec, ratio) for ratio in (24, 64, 96)]

    def walked(progress=None, checkpoint=None) -> list[Point]:
        planner = JointPlanner(data, spec, trunk, seed=1)
        given = (data, spec, model, trunk, budgets, planner, JointConfig(fine_tune=0.5, tolerance=0.0))
        return walk(*given, seed=3, device="cpu", progress=progress, checkpoint=checkpoint)

    seen: list[Point] = []

    def cut(point: Point) -> None:
        seen.append(point)
        if len(seen) == after:
            raise KeyboardInterrupt

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = walked()
        with pytest.raises(KeyboardInterrupt):
            walked(cut, tmp_path)
        gone_on = walked(checkpoint=tmp_path)
    finally:
        torch.set_num_threads(before)
    assert any(coded(point.packed.plan.fields) for point in whole)
    for a, b in zip(whole, gone_on, strict=True):
        assert a.packed.plan == b.packed.plan and a.bytes <= a.budget_bytes
        assert torch.equal(a.packed.payload, b.packed.payload)
        assert torch.equal(a.packed.segment_index, b.packed.segment_index)


def test_a_plan_with_codebooks_is_trained_anew_from_what_was_packed(
    tailed: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, spec, trunk = tailed
    monkeypatch.setattr(planner_file, "FAR", 0.0)  # training anew rounds to nearest, it has no metrics
    model, config = ModelConfig(name="dlrm", dim=8, hidden=(8,), bottom=(8,)), JointConfig(fine_tune=0.0)
    planner = JointPlanner(data, spec, trunk, seed=1)
    (point,) = walk(data, spec, model, trunk, [budget(spec, 64)], planner, config, seed=3, device="cpu")
    packed = point.packed
    given = (spec, trunk, numbered_fields(packed.plan), packed.codes(), point.budget_bytes, config)
    again = retrain(data, *given, 1.0, seed=3, device="cpu")
    assert packed.codes() and again.packed.plan == packed.plan and again.steps == trunk.ledger.steps
    assert torch.equal(again.packed.segment_index, packed.segment_index)
    assert again.untuned.auc == pytest.approx(point.untuned.auc, abs=1e-6)


def test_metrics_are_those_of_prices_and_none_where_a_plan_is_far_off(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, spec, trunk = case
    planner = JointPlanner(data, spec, trunk, seed=1)
    assert planner.metrics() is None
    planner(trunk.rows, copy.deepcopy(trunk.network).eval(), [budget(spec, 4)])
    metrics = planner.metrics()
    assert metrics is not None and planner._at_trunk is not None
    ends = (*spec.stats.first_rows, spec.stats.rows)
    for field, metric in enumerate(metrics):
        # where every look-up is of one row's field, H is what its examples sum up: alike up to a factor
        root = planner._at_trunk.second[ends[field] : ends[field + 1]].mean(0).sqrt()
        expected = root.unsqueeze(1) * planner._at_trunk.correlation(field) * root
        torch.testing.assert_close(metric, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
    monkeypatch.setattr(planner_file, "FAR", 0.0)
    assert planner.metrics() is None
