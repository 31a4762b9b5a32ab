"""Down the budgets on a tiny click log: bytes, order, repetition, resumption, what is kept and spent."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from plain_plans import PlainPlanner, plain_fields
from tiny_data import TinyData, tiny_data

from autoembed.damage import DamagedError
from autoembed.evaluate import evaluate, predict
from autoembed.joint import walk as walk_file
from autoembed.joint.checkpoint import CheckpointError, settled
from autoembed.joint.config import JointConfig
from autoembed.joint.fine_tune import StepAdam
from autoembed.joint.goal import PORTION, REACH, SURE
from autoembed.joint.planner import JointPlanner
from autoembed.joint.settle import TRIED, Settings, Trial, steps_of_trials
from autoembed.joint.shares import next_steps, steps_of
from autoembed.joint.trunk import Trunk, train_trunk
from autoembed.joint.walk import LOST, Point, _Walker, walk
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import fields_bytes, uniform_fields
from autoembed.metrics import measure
from autoembed.models import ModelConfig
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES
from autoembed.training import TrainingConfig
from autoembed.training_loop import Diverged

MODEL = ModelConfig(name="dlrm", dim=8, hidden=(16,), bottom=(8,), dropout=0.1)
QUICK = TrainingConfig(batch_size=256, learning_rate=5e-3, epochs=3, initial_std=0.05)


@dataclass(frozen=True)
class Setting:
    data: TinyData
    spec: TableSpec
    trunk: Trunk

    @property
    def budgets(self) -> list[int]:
        full = fields_bytes(self.spec, uniform_fields(self.spec, 32))
        return [int(full / ratio) for ratio in (2, 4, 6, 7)]

    def walk(self, config: JointConfig | None = None, **given) -> list[Point]:
        given = {"budgets": self.budgets, "planner": PlainPlanner(self.spec), "seed": 3} | given
        budgets, planner = given.pop("budgets"), given.pop("planner")
        config = config or JointConfig(fine_tune=1.0)
        return walk(self.data, self.spec, MODEL, self.trunk, budgets, planner, config, device="cpu", **given)


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    data, stats = tiny_data(fields=(200, 40, 400))
    trunk = train_trunk(data, stats, MODEL, QUICK, seed=0, device="cpu")
    yield Setting(data, TableSpec(stats, 8, PROFILES["packed"]), trunk)
    torch.set_num_threads(before)


def facts(points: list[Point]) -> list[tuple]:
    """All that must repeat: figures, and the very bytes of tables and network."""
    return [
        (
            *(p.budget_bytes, p.bytes, p.valid, p.test, p.untuned, p.fine_tuned, p.steps),
            *(p.packed.payload.numpy().tobytes(), p.packed.scales.numpy().tobytes()),
            [value.numpy().tobytes() for value in p.network.state_dict().values()],
        )
        for p in points
    ]


def settings_asked(monkeypatch) -> list[Settings]:
    """The settings of every tuning from now on."""
    asked = []
    before = _Walker.tuned

    def tuned(self, table, network, settings, steps, seeds):
        asked.append(settings)
        return before(self, table, network, settings, steps, seeds)

    monkeypatch.setattr(_Walker, "tuned", tuned)
    return asked


def test_no_point_is_above_its_budget_and_the_file_has_its_bytes(setting, tmp_path):
    points = setting.walk()
    assert [p.budget_bytes for p in points] == sorted(setting.budgets, reverse=True)
    for point in points:
        assert point.bytes <= point.budget_bytes
        assert point.packed.save(tmp_path / "tables.safetensors") == point.bytes


def test_what_is_reported_is_measured_on_the_packed_tables(setting):
    for point in setting.walk():
        table = PackedTable(point.packed, setting.spec.stats.first_rows)
        logits = predict(point.network, table, setting.data.batches("test", 100), torch.device("cpu"))
        assert measure(setting.data.labels("test"), logits).auc == pytest.approx(point.test.auc, abs=1e-6)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
            ],
        ),
    ],
)
def test_a_priced_walk_on_any_device_packs_what_a_cpu_measures_alike(setting, device):
    planner = JointPlanner(setting.data, setting.spec, setting.trunk, seed=3)
    config = JointConfig(fine_tune=1.0, tolerance=0.0)
    points = walk(
        *(setting.data, setting.spec, MODEL, setting.trunk, setting.budgets, planner, config),
        seed=3,
        device=device,
    )
    assert len(points) == len(setting.budgets) and any(p.fine_tuned for p in points)
    for point in points:
        assert point.bytes <= point.budget_bytes and point.packed.payload.device.type == "cpu"
        table = PackedTable(point.packed, setting.spec.stats.first_rows)
        batches = setting.data.batches("valid", 500)
        found = evaluate(
            point.network.cpu().eval(), table, batches, setting.data.labels("valid"), torch.device("cpu")
        )
        assert found.auc == pytest.approx(point.valid.auc, abs=1e-3)


def test_each_budget_is_planned_once_with_all_smaller_ones(setting):
    planner = PlainPlanner(setting.spec)
    setting.walk(planner=planner)
    budgets = sorted(setting.budgets, reverse=True)
    assert planner.asked == [tuple(budgets[n:]) for n in range(len(budgets))]


def test_a_plan_above_its_budget_is_refused(setting):
    class Greedy(PlainPlanner):
        def __call__(self, rows, network, budgets):
            return [plain_fields(self.spec, 8, 1.0, 8)] * len(budgets)

    with pytest.raises(ValueError, match="was made for a budget of"):
        setting.walk(planner=Greedy(setting.spec))


def test_the_same_seed_walks_the_same_way_and_another_does_not(setting):
    once, again, other = setting.walk(), setting.walk(), setting.walk(seed=4)
    assert facts(once) == facts(again)
    assert facts(once) != facts(other)


@pytest.mark.parametrize("after", [1, 3])
def test_a_walk_cut_off_goes_on_as_if_it_had_not_been(setting, tmp_path: Path, after):
    def cut(_: Point) -> None:
        nonlocal after
        after -= 1
        if after == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setting.walk(checkpoint=tmp_path, progress=cut)
    planner = PlainPlanner(setting.spec)
    told: list[Point] = []
    resumed = setting.walk(checkpoint=tmp_path, planner=planner, progress=told.append)
    assert facts(told) == facts(resumed)  # also of the points before the cut
    assert facts(resumed) == facts(setting.walk())
    assert 0 < len(planner.asked) < len(setting.budgets)
    assert facts(setting.walk(checkpoint=tmp_path)) == facts(resumed)


def test_another_walk_is_not_gone_on_with(setting, tmp_path):
    setting.walk(checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="another seed"):
        setting.walk(checkpoint=tmp_path, seed=9)
    other = replace(setting.trunk, rows=setting.trunk.rows.flip(0))  # as rows in another order, as good
    with pytest.raises(CheckpointError, match="began at another trunk"):
        replace(setting, trunk=other).walk(checkpoint=tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        *("walk.json", "standing_002.safetensors", "point_000/point.json"),
        *("point_001/tables.safetensors", "point_001/network.safetensors"),
    ],
)
def test_a_damaged_file_of_a_walk_is_named_with_what_to_do(setting, tmp_path, name):
    budgets = sorted(setting.budgets, reverse=True)[:2]
    points = setting.walk(checkpoint=tmp_path, budgets=budgets)
    file = tmp_path / name
    content = bytearray(file.read_bytes())
    damages = [content[:-40], b""]
    if file.suffix == ".safetensors":  # still well formed: only its checksum tells
        damages.append(content[:-40] + bytes([content[-40] ^ 0x55]) + content[-39:])
    for damage in damages:
        file.write_bytes(damage)
        with pytest.raises(DamagedError, match=f"{file}: .*altered.*or remove {tmp_path / 'walk.json'}"):
            setting.walk(checkpoint=tmp_path, budgets=budgets)
    file.unlink()
    if name != "walk.json":
        with pytest.raises(DamagedError, match=f"{file}: missing; copy it back"):
            setting.walk(checkpoint=tmp_path, budgets=budgets)
        (tmp_path / "walk.json").unlink()
    assert facts(setting.walk(checkpoint=tmp_path, budgets=budgets)) == facts(points)


def test_a_walk_of_an_earlier_version_has_no_checksums_and_is_read(setting, tmp_path):
    points = setting.walk(checkpoint=tmp_path)
    for file in [tmp_path / "walk.json", *tmp_path.glob("point_*/point.json")]:
        content = json.loads(file.read_text())
        for name in ("checksums", "explained", "teacher", "rate", "settings"):
            content.pop(name, None)
        file.write_text(json.dumps(content))
    assert facts(setting.walk(checkpoint=tmp_path)) == facts(points)


def test_no_step_is_spent_where_the_point_is_as_good_as_the_trunk(setting):
    config = JointConfig(fine_tune=1.0, tolerance=0.1, teacher=1.0)
    generous = setting.walk(config, budgets=setting.budgets[:1])
    assert generous[0].steps == 0 and not generous[0].fine_tuned
    assert generous[0].valid == generous[0].untuned
    state = generous[0].network.state_dict()
    assert all(torch.equal(state[k], v) for k, v in setting.trunk.network.state_dict().items())


def test_the_untuned_point_is_kept_where_fine_tuning_does_not_improve_it(setting):
    hopeless = replace(setting.trunk, training=QUICK.model_copy(update={"learning_rate": 1.0}))
    points = replace(setting, trunk=hopeless).walk(JointConfig(fine_tune=0.5, rate=10.0, tolerance=0.0))
    for point in points:
        assert point.fine_tuned or point.valid == point.untuned
        assert not point.untuned.better_than(point.valid, "auc")
    assert any(point.steps and not point.fine_tuned for point in points)


def test_all_fine_tuning_together_takes_the_steps_that_were_allowed(setting):
    trunk = setting.trunk
    out_of_reach = replace(trunk, valid=replace(trunk.valid, auc=2.0))
    points = replace(setting, trunk=out_of_reach).walk(JointConfig(fine_tune=1.0))
    assert sum(p.steps for p in points) == trunk.ledger.steps
    assert any(p.fine_tuned for p in points)


def test_steps_that_a_budget_does_not_need_are_saved(setting):
    points = setting.walk(JointConfig(fine_tune=1.0, tolerance=0.002, teacher=1.0))
    full = fields_bytes(setting.spec, uniform_fields(setting.spec, 32))
    ratios, total = [full / p.budget_bytes for p in points], setting.trunk.ledger.steps
    taken = [p.steps for p in points]
    allowed = [next_steps(ratios, total, taken[:number]) for number in range(len(points))]
    assert all(steps in (0, own) for steps, own in zip(taken, allowed, strict=True))
    assert {steps > 0 for steps in taken} == {False, True}, "some need none, some do"
    assert all(steps <= usual for steps, usual in zip(taken, steps_of(ratios, total), strict=True))


def test_the_first_budget_tries_settings_and_all_others_take_them(setting, tmp_path):
    steps = setting.trunk.ledger.steps
    points = setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0), checkpoint=tmp_path)
    trial = steps_of_trials(steps, steps)
    assert trial > 0 and points[0].steps in (trial, 2 * trial, 3 * trial)
    assert sum(p.steps for p in points) <= steps
    assert [t.teacher for t in points[0].tried] in ([0.9], [0.9, 0.65], [1.0, 0.9], [1.0, 0.9, 0.65])
    assert len(points[0].tried) * trial == points[0].steps and not points[1].tried
    read = setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0), checkpoint=tmp_path)
    assert [p.tried for p in read] == [p.tried for p in points]
    found = settled(tmp_path, JointConfig())
    assert (found.teacher, found.rate) in [(t, pytest.approx(0.3 * faster)) for t, faster in TRIED]
    assert {(p.teacher, p.rate) for p in points} <= {(found.teacher, found.rate), (None, None)}
    assert any(p.teacher for p in points)
    assert all((p.teacher is not None) == p.fine_tuned for p in points)


@pytest.mark.parametrize("metric", ["auc", "logloss"])
def test_whether_steps_are_needed_is_asked_of_the_studys_metric(setting, metric):
    """Ranks that are as good as the trunk's say nothing of a log loss that is not."""
    worse = {"auc": 1.0, "logloss": 0.0}  # what the trunk is made out to have
    for name, value in worse.items():
        training = QUICK.model_copy(update={"metric": metric})
        valid = replace(setting.trunk.valid, **{name: value})
        trunk = replace(setting.trunk, training=training, valid=valid)
        config = JointConfig(fine_tune=1.0, tolerance=0.05, teacher=1.0)
        (point,) = replace(setting, trunk=trunk).walk(config, budgets=setting.budgets[:1])
        assert (point.steps > 0) == (name == metric)


def test_what_labels_taught_is_what_smaller_budgets_have_to_reach(setting):
    """Labels that the trunk has not learned from make every model better than it."""
    data, stats = tiny_data(fields=(200, 40, 400))
    early = QUICK.model_copy(update={"epochs": 1, "learning_rate": 5e-4})
    trunk = train_trunk(data, stats, MODEL, early, seed=0, device="cpu")
    learning = replace(setting, trunk=replace(trunk, ledger=setting.trunk.ledger, training=QUICK))
    points = learning.walk(JointConfig(fine_tune=3.0))
    assert points[0].teacher == 0.65 and points[0].valid.auc > trunk.valid.auc + 0.01
    best = trunk.valid.auc
    for point in points:
        assert point.steps or point.untuned.auc >= best - JointConfig().tolerance
        best = max(best, point.valid.auc)


def test_a_single_budget_takes_all_steps_that_trials_leave(setting):
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    walked = replace(setting, trunk=out_of_reach)
    (point,) = walked.walk(JointConfig(fine_tune=1.0), budgets=setting.budgets[-1:])
    assert point.steps == setting.trunk.ledger.steps and point.fine_tuned


def test_a_rate_that_only_trials_asked_for_may_diverge(setting, monkeypatch):
    def tuned(self, table, network, settings, steps, seeds):
        if settings.teacher < 1.0:
            raise Diverged("too fast")
        return before(self, table, network, settings, steps, seeds)

    before = _Walker.tuned
    monkeypatch.setattr(_Walker, "tuned", tuned)
    points = setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0))
    assert {p.teacher for p in points} <= {1.0, None} and any(p.fine_tuned for p in points)
    monkeypatch.setattr("autoembed.joint.walk.settle", lambda *_: (Settings(0.65, 0.9), None, ()))
    assert not any(p.fine_tuned for p in setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0)))
    with pytest.raises(Diverged):  # the user asked for it
        setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0, teacher=0.5))


def test_rows_that_became_infinite_are_said_to_have_diverged(setting):
    hopeless = replace(setting.trunk, training=QUICK.model_copy(update={"learning_rate": 1e6}))
    with pytest.raises(Diverged, match=r"lower joint\.rate"):
        replace(setting, trunk=hopeless).walk(
            JointConfig(fine_tune=0.5, rate=10.0, tolerance=0.0, teacher=1.0)
        )


def test_a_teacher_that_is_given_is_not_tried(setting, tmp_path):
    points = setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0, teacher=0.5), checkpoint=tmp_path)
    assert {p.teacher for p in points if p.fine_tuned} == {0.5}
    full = fields_bytes(setting.spec, uniform_fields(setting.spec, 32))
    allowed = steps_of([full / p.budget_bytes for p in points], setting.trunk.ledger.steps)
    assert all(point.steps in (0, own) for point, own in zip(points, allowed, strict=True))
    assert settled(tmp_path, JointConfig()) == Settings(0.5, 0.3)


@pytest.mark.parametrize("size", [1e-4, 1.0])
def test_learned_steps_move_at_one_relative_rate_whatever_their_size(size):
    steps = torch.nn.Parameter(torch.tensor([size, 100 * size]))
    adam = StepAdam(steps)
    for _ in range(10):
        steps.grad = torch.tensor([1.0, -1.0]) / steps.detach()
        adam.step(0.01)
    ratio = steps.detach() / torch.tensor([size, 100 * size])
    torch.testing.assert_close(
        ratio, torch.tensor([-0.1, 0.1]).exp(), rtol=1e-4, atol=0
    )  # moments in float32


GOAL = JointConfig(fine_tune=1.0, max_drop=0.02, teacher=1.0)


def drops(setting: Setting, points: list[Point]) -> list[float]:
    """AUC that the plans lose before a step."""
    return [setting.trunk.valid.auc - point.untuned.auc for point in points]


def test_a_search_within_a_drop_spends_its_steps_where_that_is_decided(setting):
    full = fields_bytes(setting.spec, uniform_fields(setting.spec, 32))
    budgets = [int(full / ratio) for ratio in (2, 4, 12, 24, 36)]
    plain = setting.walk(JointConfig(fine_tune=0.0, teacher=1.0), budgets=budgets)
    first = drops(setting, plain)
    assert first == sorted(first) and first[3] > 4 * first[2]
    allowed = first[2] / 2  # the second and third are not surely within, the fourth is out of reach
    assert first[0] <= SURE * allowed < first[1] < first[2] <= REACH * allowed < first[3]
    points = setting.walk(GOAL.model_copy(update={"max_drop": allowed}), budgets=budgets)
    total = setting.trunk.ledger.steps
    portion = round(PORTION * total)
    assert points[1].valid.auc >= setting.trunk.valid.auc - allowed, "else it gets the rest"
    assert [p.steps for p in points] == [0, portion, total - portion, 0, 0]
    assert points[1].fine_tuned and points[2].fine_tuned
    # what these learned stays with them: the others are as without it
    assert [p.untuned for p in points] == [p.untuned for p in plain]
    assert facts(points[3:]) == facts(plain[3:])


def test_behind_a_budget_that_is_not_within_no_step_is_spent(setting):
    """What a portion does not help gets no more, and nor does what is smaller."""
    hopeless = replace(setting.trunk, training=QUICK.model_copy(update={"learning_rate": 1.0}))
    goal = GOAL.model_copy(update={"max_drop": 1e-6, "rate": 10.0})
    points = replace(setting, trunk=hopeless).walk(goal)
    portion = round(PORTION * setting.trunk.ledger.steps)
    assert [p.steps for p in points] == [portion, *[0] * (len(points) - 1)]
    assert not any(p.fine_tuned for p in points)


def test_where_every_plan_is_within_no_step_is_spent(setting):
    points = setting.walk(GOAL.model_copy(update={"max_drop": 0.5}))
    assert all(p.steps == 0 and not p.fine_tuned for p in points)


def test_a_search_within_a_drop_that_was_cut_off_goes_on_as_if_it_had_not_been(setting, tmp_path):
    def cut(_: Point) -> None:
        raise KeyboardInterrupt

    planner = JointPlanner(setting.data, setting.spec, setting.trunk, seed=3)
    goal = GOAL.model_copy(update={"teacher": "auto"})
    with pytest.raises(KeyboardInterrupt):
        setting.walk(goal, checkpoint=tmp_path, progress=cut, planner=planner)
    again = JointPlanner(setting.data, setting.spec, setting.trunk, seed=3)
    resumed = setting.walk(goal, checkpoint=tmp_path, planner=again)
    whole = JointPlanner(setting.data, setting.spec, setting.trunk, seed=3)
    assert facts(resumed) == facts(setting.walk(goal, planner=whole))
    with pytest.raises(CheckpointError, match="another joint"):
        setting.walk(JointConfig(fine_tune=1.0), checkpoint=tmp_path, planner=whole)


def test_what_a_portion_helps_but_does_not_bring_within_gets_the_rest(setting, monkeypatch):
    """Of the plan as it was, and the better of the two is kept."""
    asked: list[int] = []
    begun: list[torch.Tensor] = []
    before = _Walker.tuned

    def tuned(self, table, network, settings, steps, seeds):
        asked.append(steps)
        begun.append(table.rows.weight.clone())
        return before(self, table, network, settings, steps, seeds)

    monkeypatch.setattr(_Walker, "tuned", tuned)
    budgets = [setting.budgets[-1]]
    goal = GOAL.model_copy(update={"fine_tune": 4.0, "max_drop": 1e-6})
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    (point,) = replace(setting, trunk=out_of_reach).walk(goal, budgets=budgets)
    total = 4 * setting.trunk.ledger.steps
    assert asked == [round(PORTION * total), total - round(PORTION * total)] and point.steps == total
    assert torch.equal(*begun) and point.fine_tuned


def test_the_first_budget_gets_the_rest_also_where_a_trial_was_better_than_its_portion(setting, monkeypatch):
    """Steps help: the plan as it stands is what they are compared with."""
    asked: list[int] = []
    before = _Walker.tuned

    def tuned(self, table, network, settings, steps, seeds):
        asked.append(steps)
        found = before(self, table, network, settings, steps, seeds)
        few = len(asked) > len(points_tried)
        return replace(found, valid=replace(found.valid, auc=found.valid.auc - 0.001)) if few else found

    points_tried = [0, 0, 0]  # trials of settings come first
    monkeypatch.setattr(_Walker, "tuned", tuned)
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    goal = JointConfig(fine_tune=2.0, max_drop=1e-6)
    (point,) = replace(setting, trunk=out_of_reach).walk(goal, budgets=setting.budgets[-1:])
    assert len(point.tried) == 3 and len(asked) == 5 and point.steps == sum(asked)
    assert point.steps == 2 * setting.trunk.ledger.steps


def test_the_plan_behind_the_first_budget_is_looked_at_from_what_that_learned(setting, monkeypatch):
    looked: list[float | None] = []

    def rest(drop, before, allowed, next_drop, left):
        looked.append(next_drop())
        return 0

    monkeypatch.setattr("autoembed.joint.walk.rest", rest)
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    goal = GOAL.model_copy(update={"teacher": 0.5, "max_drop": 1.5, "fine_tune": 4.0})
    points = replace(setting, trunk=out_of_reach).walk(goal)
    assert points[0].fine_tuned and points[1].fine_tuned
    assert looked == [*(2.0 - p.untuned.auc for p in points[1:]), None]


def test_a_plan_that_is_within_by_chance_takes_no_step_behind_one_that_is_not(setting):
    walker = _Walker(setting.data, setting.spec, setting.trunk, GOAL, torch.device("cpu"))
    (point,) = setting.walk(JointConfig(fine_tune=0.0, teacher=1.0), budgets=setting.budgets[:1])
    over = replace(point, valid=replace(point.valid, auc=setting.trunk.valid.auc - 2 * GOAL.max_drop))
    assert walker.steps_for(setting.budgets, [point]) == setting.trunk.ledger.steps
    assert walker.steps_for(setting.budgets, [point, over]) == 0
    assert walker.steps_for(setting.budgets, [over, point]) == 0


def test_a_plan_that_loses_most_as_it_stands_is_made_and_tuned_from_the_trunks_rows(
    setting, monkeypatch, tmp_path
):
    config = JointConfig(fine_tune=1.0, tolerance=0.0, teacher=1.0)
    plain = setting.walk(JointConfig(fine_tune=0.0, teacher=1.0))
    usual = setting.walk(config)
    assert any(p.fine_tuned for p in usual) and not any(p.afresh for p in usual)
    assert [p.untuned for p in usual[1:]] != [p.untuned for p in plain[1:]]
    monkeypatch.setattr("autoembed.joint.walk.LOST", -1.0)
    asked = settings_asked(monkeypatch)
    points = setting.walk(config, checkpoint=tmp_path)
    assert [p.afresh for p in points] == [False, True, True, True]
    assert [p.untuned for p in points] == [p.untuned for p in plain], "no trace of larger budgets"
    assert asked == [Settings(1.0, 0.3), *[Settings(1.0, 0.9)] * 3]
    assert {p.rate for p in points[1:] if p.fine_tuned} == {0.9}
    assert settled(tmp_path, config) == Settings(1.0, 0.3), "smaller budgets go on with the usual ones"
    assert facts(setting.walk(config, checkpoint=tmp_path)) == facts(points)
    asked.clear()
    setting.walk(config.model_copy(update={"rate": 0.6}))
    assert asked[1:] == [Settings(1.0, 1.0)] * 3, "up to the trunk's own rate"
    # without steps there is nothing to gain by it, and what was learned stays
    assert not any(p.afresh for p in setting.walk(JointConfig(fine_tune=0.0, teacher=1.0)))


def test_what_is_lost_is_a_share_of_what_the_trunk_has_above_chance(setting):
    walker = _Walker(setting.data, setting.spec, setting.trunk, JointConfig(), torch.device("cpu"))
    trunk = setting.trunk.valid
    lost = LOST * (trunk.auc - 0.5)
    assert walker._is_lost(replace(trunk, auc=trunk.auc - 1.01 * lost))
    assert not walker._is_lost(replace(trunk, auc=trunk.auc - 0.99 * lost))


def test_a_point_made_afresh_is_not_tuned_slower_than_the_user_asked(setting, monkeypatch):
    monkeypatch.setattr("autoembed.joint.walk.LOST", -1.0)
    asked = settings_asked(monkeypatch)
    setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0, teacher=1.0, rate=2.0))
    assert asked == [Settings(1.0, 2.0)] * 4


def test_a_trunk_left_in_training_mode_is_walked_from_as_one_that_is_not(setting):
    network = copy.deepcopy(setting.trunk.network).train()
    config = JointConfig(fine_tune=1.0, tolerance=0.0)
    found = replace(setting, trunk=replace(setting.trunk, network=network)).walk(config)
    assert facts(found) == facts(setting.walk(config))
    assert network.training and not any(p.network.training for p in found)


def test_the_plan_that_a_point_has_is_the_one_explained(setting, monkeypatch):
    """Not the one that was dropped where it is made afresh, nor one of a smaller budget, looked at."""
    planner = PlainPlanner(setting.spec)
    explain = lambda: {"asked": len(planner.asked)}  # noqa: E731
    goal = GOAL.model_copy(update={"max_drop": 1.5, "fine_tune": 4.0})
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    points = replace(setting, trunk=out_of_reach).walk(goal, planner=planner, explain=explain)
    assert points[0].steps and len(planner.asked) > len(points), "a smaller budget's plan was looked at"
    looked = [planner.asked.index(asked) for asked in dict.fromkeys(planner.asked)]
    assert points[0].explained == {"asked": 1} and looked[0] == 0
    planner.asked.clear()
    monkeypatch.setattr("autoembed.joint.walk.LOST", -1.0)
    config = JointConfig(fine_tune=1.0, tolerance=0.0, teacher=1.0)
    points = setting.walk(config, planner=planner, explain=explain)
    assert [p.explained for p in points] == [{"asked": count} for count in (1, 3, 5, 7)]


def test_every_trial_starts_from_the_plan_as_it_stands_with_the_same_chances(setting, monkeypatch):
    """Rows, network, order of examples and dropout; and so does what is tuned behind them."""
    begun = []
    before = _Walker.tuned

    def tuned(self, table, network, settings, steps, seeds):
        state = [value.clone() for value in network.state_dict().values()]
        begun.append((table.rows.weight.clone(), *state, seeds.get_state(), torch.get_rng_state()))
        return before(self, table, network, settings, steps, seeds)

    monkeypatch.setattr(_Walker, "tuned", tuned)
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    (point,) = replace(setting, trunk=out_of_reach).walk(
        JointConfig(fine_tune=2.0), budgets=setting.budgets[:1]
    )
    assert len(point.tried) >= 2 and len(begun) == len(point.tried) + 1
    first, *trials, last = begun
    for other in trials:
        assert all(map(torch.equal, first, other))
    assert all(map(torch.equal, first[:-2], last[:-2])) and not torch.equal(first[-2], last[-2])


def test_trials_that_do_harm_do_not_make_a_plan_that_is_surely_within_take_steps(setting, monkeypatch):
    before = _Walker.tuned

    def tuned(self, table, network, settings, steps, seeds):
        found = before(self, table, network, settings, steps, seeds)
        return replace(found, valid=replace(found.valid, auc=found.valid.auc - 0.3))

    monkeypatch.setattr(_Walker, "tuned", tuned)
    better = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=setting.trunk.valid.auc + 0.01))
    goal = GOAL.model_copy(update={"teacher": "auto", "max_drop": 0.1})
    (point,) = replace(setting, trunk=better).walk(goal, budgets=setting.budgets[:1])
    total = setting.trunk.ledger.steps
    assert [t.teacher for t in point.tried] == [1.0, 0.9]
    assert point.steps == 2 * steps_of_trials(total, total) and not point.fine_tuned


def test_portions_are_all_of_the_steps_of_all_points(setting, monkeypatch):
    monkeypatch.setattr("autoembed.joint.walk.rest", lambda *_: 0)
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    goal = GOAL.model_copy(update={"max_drop": 1.5, "fine_tune": 4.0})
    points = replace(setting, trunk=out_of_reach).walk(goal)
    assert [p.steps for p in points] == [round(PORTION * 4 * setting.trunk.ledger.steps)] * 4


def test_behind_trials_no_steps_follow_that_are_fewer_than_one_of_them_had(setting, monkeypatch):
    found = Settings(1.0, 0.3), None, (Trial(1.0, 0.3, None),) * 3
    monkeypatch.setattr("autoembed.joint.walk.settle", lambda *_: found)
    total = setting.trunk.ledger.steps
    trial = steps_of_trials(total, total)
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    full = fields_bytes(setting.spec, uniform_fields(setting.spec, 32))
    taken = []
    for ratios in ((7, 12), (7, 7.5)):
        left = next_steps(ratios, total, ()) - 3 * trial
        budgets = [int(full / ratio) for ratio in ratios]
        points = replace(setting, trunk=out_of_reach).walk(JointConfig(fine_tune=1.0), budgets=budgets)
        taken.append((left <= trial, points[0].steps - 3 * trial))
        assert left > 0 and points[0].steps == 3 * trial + (0 if left <= trial else left)
    assert [few for few, _ in taken] == [True, False]


def test_what_the_common_columns_took_costs_the_first_point_alone(setting):
    trunk = replace(setting.trunk, basis_seconds=1000.0, basis_cpu_seconds=2000.0)
    points = replace(setting, trunk=trunk).walk(JointConfig(fine_tune=0.0, teacher=1.0))
    assert points[0].seconds > 1000 and points[0].cpu_seconds > 2000
    assert all(p.seconds < 1000 and p.cpu_seconds < 1000 for p in points[1:])


def test_tables_beside_the_one_that_is_tuned_count_in_the_peak(setting):
    """Trials of settings, and portions that are trained anew, hold the rows of two models more."""
    rows = setting.trunk.rows.nbytes
    one, *_ = setting.walk(JointConfig(fine_tune=1.0, teacher=1.0, tolerance=0.0))
    tried, *_ = setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0))
    assert tried.tried and tried.bytes == one.bytes
    assert tried.table_bytes >= one.table_bytes + 3 * rows
    sure, *_ = setting.walk(GOAL.model_copy(update={"max_drop": 0.5}))
    few, *_ = setting.walk(GOAL.model_copy(update={"max_drop": 1e-6}))
    assert few.steps and not sure.steps and few.table_bytes >= tried.table_bytes


def test_only_what_steps_brought_raises_what_is_to_be_met(setting):
    config = JointConfig(tolerance=0.0)
    walker = _Walker(setting.data, setting.spec, setting.trunk, config, torch.device("cpu"))
    trunk = setting.trunk.valid
    (point,) = setting.walk(JointConfig(fine_tune=0.0, teacher=1.0), budgets=setting.budgets[:1])
    better = replace(point, valid=replace(point.valid, auc=trunk.auc + 0.01))
    assert walker._is_enough(trunk, [better])
    assert not walker._is_enough(trunk, [replace(better, fine_tuned=True)])


def test_a_point_that_gains_much_is_within_a_drop(setting):
    walker = _Walker(setting.data, setting.spec, setting.trunk, GOAL, torch.device("cpu"))
    (point,) = setting.walk(JointConfig(fine_tune=0.0, teacher=1.0), budgets=setting.budgets[:1])
    better = replace(point, valid=replace(point.valid, auc=setting.trunk.valid.auc + 2 * GOAL.max_drop))
    assert walker.steps_for(setting.budgets, [better]) == setting.trunk.ledger.steps


def test_learned_steps_go_on_to_a_budget_of_the_same_plan(setting):
    better = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=setting.trunk.valid.auc + 0.03))
    budgets = [setting.budgets[0], setting.budgets[0] - 1]
    config = JointConfig(fine_tune=4.0, teacher=0.5, step_rate=0.02)
    first, second = replace(setting, trunk=better).walk(config, budgets=budgets)
    assert first.fine_tuned and first.bytes == second.bytes
    assert not second.afresh and second.untuned == first.valid


def test_steps_are_made_with_the_settings_that_were_asked_for(setting, monkeypatch):
    made = []
    before = walk_file.fine_tune

    def fine_tune(data, table, network, training, steps, seeds, device, **given):
        made.append((training.learning_rate / QUICK.learning_rate, given["dropout"], given["step_rate"]))
        return before(data, table, network, training, steps, seeds, device, **given)

    monkeypatch.setattr(walk_file, "fine_tune", fine_tune)
    config = JointConfig(fine_tune=1.0, tolerance=0.0, teacher=0.5, rate=0.25, dropout=False, step_rate=0.05)
    setting.walk(config)
    assert made and set(made) == {(0.25, False, 0.05)}
    made.clear()
    monkeypatch.setattr(walk_file, "LOST", -1.0)
    setting.walk(config)
    assert [rate for rate, *_ in made] == pytest.approx([0.25, *[0.75] * (len(made) - 1)])


def test_how_the_loss_minds_changes_reaches_the_tables(setting):
    class Minding(PlainPlanner):
        def metrics(self):
            return [torch.ones(8, 8) + 0.01 * torch.eye(8)] * 3

    config = JointConfig(fine_tune=0.0, teacher=1.0)
    plain, minding = setting.walk(config), setting.walk(config, planner=Minding(setting.spec))
    assert [p.bytes for p in plain] == [p.bytes for p in minding]
    assert not any(
        torch.equal(a.packed.payload, b.packed.payload) for a, b in zip(plain, minding, strict=True)
    )


def test_labels_teach_as_much_as_was_asked_for(setting):
    config = JointConfig(fine_tune=2.0, tolerance=0.0)
    alone, half = (
        setting.walk(config.model_copy(update={"teacher": teacher}), budgets=setting.budgets[:1])
        for teacher in (1.0, 0.5)
    )
    assert alone[0].steps == half[0].steps > 0 and facts(alone) != facts(half)


def test_every_point_has_chances_of_its_own_and_leaves_those_of_others(setting, monkeypatch):
    seeds_of = []
    before = _Walker.tuned

    def tuned(self, table, network, settings, steps, seeds):
        seeds_of.append((seeds.initial_seed(), torch.initial_seed()))
        return before(self, table, network, settings, steps, seeds)

    monkeypatch.setattr(_Walker, "tuned", tuned)
    out_of_reach = replace(setting.trunk, valid=replace(setting.trunk.valid, auc=2.0))
    state = torch.get_rng_state()
    points = replace(setting, trunk=out_of_reach).walk(JointConfig(fine_tune=2.0, teacher=1.0))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(seeds_of) == len(points)
    assert all(len(set(seeds)) == len(points) for seeds in zip(*seeds_of, strict=True))


def test_a_budget_given_twice_is_walked_once(setting):
    config = JointConfig(fine_tune=0.0, teacher=1.0)
    points = setting.walk(config, budgets=[*setting.budgets, setting.budgets[0]])
    assert facts(points) == facts(setting.walk(config))


def test_the_faster_rate_of_a_point_made_afresh_may_diverge(setting, monkeypatch):
    def tuned(self, table, network, settings, steps, seeds):
        if settings.rate > 0.3:
            raise Diverged("too fast")
        return before(self, table, network, settings, steps, seeds)

    before = _Walker.tuned
    monkeypatch.setattr(_Walker, "tuned", tuned)
    monkeypatch.setattr(walk_file, "LOST", -1.0)
    points = setting.walk(JointConfig(fine_tune=1.0, tolerance=0.0, teacher=1.0))
    assert [p.afresh for p in points] == [False, True, True, True]
    assert any(p.steps for p in points[1:]) and not any(p.fine_tuned for p in points[1:])


def test_a_plan_trained_anew_is_trained_at_the_trunks_own_rates(setting, monkeypatch):
    made = []
    before = walk_file.fine_tune

    def fine_tune(data, table, network, training, steps, seeds, device, **given):
        made.append((training.learning_rate, steps))
        return before(data, table, network, training, steps, seeds, device, **given)

    monkeypatch.setattr(walk_file, "fine_tune", fine_tune)
    fields = plain_fields(setting.spec, 4, 0.5, 8)
    size = fields_bytes(setting.spec, fields)
    given = (setting.data, setting.spec, setting.trunk, fields, {}, size)
    point = walk_file.retrain(*given, JointConfig(), 0.5, seed=3, device="cpu")
    assert made == [(QUICK.learning_rate, round(0.5 * setting.trunk.ledger.steps))]
    assert (point.rate, point.teacher, point.steps) == (1.0, 1.0, made[0][1])


def test_a_walk_cut_off_behind_a_point_made_afresh_in_vain_goes_on_as_if_it_had_not_been(
    setting, monkeypatch, tmp_path
):
    """It stands at the trunk's rows again, which are to have the prices that they had before the cut."""
    before = _Walker.tuned

    def tuned(self, table, network, settings, steps, seeds):
        if settings.rate > 0.3:
            raise Diverged("too fast")
        return before(self, table, network, settings, steps, seeds)

    def planner():
        return JointPlanner(setting.data, setting.spec, setting.trunk, seed=3)

    def cut(point: Point) -> None:
        if point.steps and not point.fine_tuned:
            raise KeyboardInterrupt

    monkeypatch.setattr(_Walker, "tuned", tuned)
    monkeypatch.setattr("autoembed.joint.walk.LOST", -1.0)
    # fewer than there are, as where data have millions
    monkeypatch.setattr("autoembed.joint.planner.EVALUATION_BATCH", 250)
    monkeypatch.setattr("autoembed.joint.planner.PRICED_EXAMPLES", 1000)
    monkeypatch.setattr("autoembed.joint.planner.REPRICED_EXAMPLES", 500)
    config = JointConfig(fine_tune=4.0, tolerance=0.0, teacher=0.5)
    whole = setting.walk(config, planner=planner())
    assert whole[0].fine_tuned and whole[1].steps and not whole[1].fine_tuned
    with pytest.raises(KeyboardInterrupt):
        setting.walk(config, planner=planner(), checkpoint=tmp_path, progress=cut)
    assert facts(setting.walk(config, planner=planner(), checkpoint=tmp_path)) == facts(whole)


def test_where_a_plan_is_tuned_afresh_in_vain_the_better_of_the_two_is_kept(setting, monkeypatch):
    """From the larger neighbour's rows or from the trunk's, with its own size and explanation."""
    seen = []
    before, tune = _Walker._begun, _Walker.tuned

    def begun(self, planner, *given):
        found = before(self, planner, *given)
        seen.append((found.untuned.auc, found.size, len(planner.asked)))
        return found

    def tuned(self, table, network, settings, steps, seeds):
        if settings.rate > 0.3:
            raise Diverged("too fast")
        return tune(self, table, network, settings, steps, seeds)

    monkeypatch.setattr(_Walker, "_begun", begun)
    monkeypatch.setattr(_Walker, "tuned", tuned)
    monkeypatch.setattr(walk_file, "LOST", -1.0)
    planner = PlainPlanner(setting.spec)
    budgets = [int(setting.budgets[0] / ratio) for ratio in (1, 2, 3, 3.5, 8)]
    points = setting.walk(
        JointConfig(fine_tune=4.0, tolerance=0.0, teacher=0.5),
        planner=planner,
        budgets=budgets,
        explain=lambda: {"asked": len(planner.asked)},
    )
    assert points[0].fine_tuned and not any(p.fine_tuned for p in points[1:])
    pairs = list(zip(seen[1::2], seen[2::2], strict=True))
    assert len(pairs) == 4
    for point, (neighbour, trunk) in zip(points[1:], pairs, strict=True):
        auc, size, asked = neighbour if neighbour[0] > trunk[0] else trunk
        assert (point.valid.auc, point.untuned.auc, point.bytes) == (auc, auc, size)
        assert point.explained == {"asked": asked} and point.afresh == (asked == trunk[2])
    assert not all(p.afresh for p in points[1:])
