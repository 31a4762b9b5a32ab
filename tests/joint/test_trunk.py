"""The full-precision model: what `train` would give, and settings that are changed only for a reason."""

import pytest
from tiny_data import tiny_data

from autoembed.joint.trunk import candidates_of, train_trunk
from autoembed.methods.full_precision import FullPrecision
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.training import TrainingConfig, train

MODEL = ModelConfig(name="dlrm", dim=8, hidden=(16,), bottom=(8,))
QUICK = TrainingConfig(batch_size=256, learning_rate=5e-3, epochs=3, initial_std=0.05)


pytestmark = pytest.mark.usefixtures("one_thread")


def test_untuned_it_is_the_full_precision_that_training_gives():
    data, stats = tiny_data()
    trunk = train_trunk(data, stats, MODEL, QUICK, seed=3, device="cpu")
    trained = train(data, stats, FullPrecision(), PROFILES["packed"], MODEL, QUICK, seed=3, device="cpu")
    assert trunk.valid.auc == pytest.approx(trained.valid.auc, abs=1e-9)
    assert trunk.test.auc == pytest.approx(trained.test.auc, abs=1e-9)
    assert trunk.rows.shape == (stats.rows, 8) and trunk.tuning == () and trunk.training is QUICK


def test_poor_settings_are_replaced_and_the_trials_are_accounted_for():
    data, stats = tiny_data()
    slow = QUICK.model_copy(update={"learning_rate": 2e-4, "table_learning_rate": 1e-4, "epochs": 6})
    trunk = train_trunk(data, stats, MODEL, slow, trainings=2.0, seed=3, device="cpu")
    assert trunk.training.learning_rate > slow.learning_rate
    assert trunk.training.table_learning_rate == pytest.approx(trunk.training.learning_rate / 2)
    assert trunk.training.epochs == slow.epochs
    assert trunk.tuning[0].training is slow
    assert sum(t.steps for t in trunk.tuning) <= 2.0 * 6 * 12 and all(t.steps > 0 for t in trunk.tuning)
    assert trunk.ledger.samples <= 6 * 3000  # the final training alone


def test_the_schedule_is_changed_where_full_trainings_say_so():
    data, stats = tiny_data()
    short = QUICK.model_copy(update={"epochs": 2, "learning_rate": 3e-4, "patience": 1})
    tuned = train_trunk(data, stats, MODEL, short, trainings=12.0, seed=3, device="cpu")
    full = [tried for tried in tuned.tuning if tried.epochs >= 2 and tried.training != tuned.training]
    assert tuned.training.epochs > 2  # the last epoch allowed was the best
    assert any(tried.training.epochs == 2 for tried in full)
    best = min(full, key=lambda tried: -tried.valid.auc)
    assert tuned.valid.auc >= best.valid.auc - 1e-9
    once = train_trunk(data, stats, MODEL, short, trainings=1.0, seed=3, device="cpu")
    assert once.training.epochs == 2 and once.training.cut_factor == short.cut_factor  # no effort is left


def test_settings_that_diverge_are_no_reason_to_stop():
    data, stats = tiny_data()
    wild = QUICK.model_copy(
        update={"learning_rate": 9.0, "l2_rows": 1e3, "epochs": 2, "optimizer": "adagrad"}
    )
    trunk = train_trunk(data, stats, MODEL, wild, trainings=3.0, seed=3, device="cpu")
    assert trunk.valid.auc > 0


def test_the_users_settings_are_the_first_candidate_and_each_change_is_another():
    candidates = candidates_of(QUICK)
    assert candidates[0] is QUICK
    settings = {(c.learning_rate, c.l2_rows) for c in candidates}
    assert len(settings) == len(candidates)


def test_no_more_trainings_tune_a_trunk_than_have_records(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("autoembed.joint.trunk.MOST_TRIED", 14)
    data, stats = tiny_data()
    quick = QUICK.model_copy(update={"epochs": 1})
    trunk = train_trunk(data, stats, MODEL, quick, trainings=40.0, seed=3, device="cpu")
    assert len(trunk.tuning) == 14
