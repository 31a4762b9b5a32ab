"""The loop on a tiny generated click log: it learns, repeats, stops, remembers, and counts what it costs."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from tiny_data import TinyData, tiny_data
from torch import Tensor, nn

from autoembed.budget import Footprint
from autoembed.config import ConfigError, parse
from autoembed.data.batch import Batch
from autoembed.evaluate import evaluate
from autoembed.lookup import Lookup
from autoembed.methods.base import Method, Table, TableSpec, initial_rows
from autoembed.methods.fp16 import Fp16
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.mpe import Mpe
from autoembed.methods.uniform import Uniform
from autoembed.models import ModelConfig
from autoembed.packed import Packed, PackedTable, SegmentRows, pack
from autoembed.plan import PROFILES, FieldPlan, Plan, own
from autoembed.tables import RowStore
from autoembed.training import Diverged, Progress, Trained, TrainingConfig, denormals_are_zero, train
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.row_update import RowOptimizer

PROFILE = PROFILES["packed"]
MODEL = ModelConfig(name="dlrm", dim=8, hidden=(16,), bottom=(8,))
QUICK = TrainingConfig(batch_size=256, learning_rate=5e-3, epochs=3, initial_std=0.05)


pytestmark = pytest.mark.usefixtures("one_thread")


def _train(
    method: Method | None = None, training: TrainingConfig = QUICK, *, seed: int = 0, **data: bool
) -> Trained:
    examples, stats = tiny_data(**data)
    return train(
        examples, stats, method or FullPrecision(), PROFILE, MODEL, training, seed=seed, device="cpu"
    )


@dataclass(frozen=True)
class Recording(Method):
    """Full precision that writes down what the trainer asks of it, and may ask for a retraining."""

    retrain: bool = False
    name: ClassVar[str] = "recording"
    summary: ClassVar[str] = ""
    source: ClassVar[str] = ""
    levers: ClassVar[tuple[str, ...]] = ()
    made: ClassVar[list["RecordingTable"]] = []

    def footprint(self, spec: TableSpec) -> Footprint:
        return Footprint(0, 0)

    def table(self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer) -> Table:
        table = RecordingTable(spec, generator, optimizer, self.retrain)
        self.made.append(table)
        return table


class RecordingTable(Table):
    def __init__(
        self, spec: TableSpec, generator: torch.Generator, optimizer: RowOptimizer, retrain: bool
    ) -> None:
        super().__init__(spec)
        self.start = initial_rows(spec, spec.stats.rows, generator)
        self.rows = RowStore(self.start.clone(), optimizer)
        self.gate = nn.Parameter(torch.ones(()))
        self.retrain = retrain
        self.steps: list[int] = []
        self.settled = 0

    def values(self, lookup: Lookup) -> Tensor:
        _, weights, repeats = self.rows.gather(lookup.rows)
        return repeat(weights, repeats) * self.gate

    def update(self, learning_rate: float) -> None:
        self.rows.update(learning_rate)

    def penalty(self) -> Tensor:
        return 0.1 * self.gate.square()

    def after_step(self, step: int) -> None:
        self.steps.append(step)

    def settle(self) -> bool:
        self.settled += 1
        if self.retrain:
            self.rows = RowStore(self.start.clone(), self.rows.optimizer)
        return self.retrain

    def plan(self) -> Plan:
        dim = self.spec.dim
        return Plan(
            self.spec.profile,
            tuple(
                FieldPlan(f.name, f.rows, dim, (own(0, f.rows, dim, "fp32"),)) for f in self.spec.stats.fields
            ),
        )

    def pack(self) -> Packed:
        weight = (self.rows.weight * self.gate).detach()
        first = self.spec.stats.first_rows
        return pack(
            self.plan(), lambda field, s: SegmentRows(weight[first[field] + s.start : first[field] + s.stop])
        )

    @property
    def training_bytes(self) -> int:
        return self.rows.nbytes


@pytest.mark.parametrize("bag", [False, True])
def test_training_learns_the_planted_signal(bag: bool) -> None:
    trained = _train(bag=bag)
    assert trained.test.auc > 0.8
    assert trained.test.logloss < trained.history[0].training_loss
    assert trained.bytes == trained.packed.bytes


def test_the_same_seed_gives_the_same_bytes_network_and_metrics() -> None:
    first, second, other = _train(seed=3), _train(seed=3), _train(seed=4)
    assert torch.equal(first.packed.payload, second.packed.payload)
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name
    assert (first.valid, first.test) == (second.valid, second.test)
    assert not torch.equal(first.packed.payload, other.packed.payload)


def test_dropout_too_depends_on_the_seed_alone_and_the_global_generator_is_left_as_it_was() -> None:
    model = ModelConfig(name="dnn", dim=4, hidden=(16,), dropout=0.5)
    data, stats = tiny_data(rows=600)
    results = []
    for ambient in (1, 2):
        torch.manual_seed(ambient)
        expected_next = torch.rand(1, generator=torch.Generator().manual_seed(ambient))
        results.append(train(data, stats, FullPrecision(), PROFILE, model, QUICK, seed=0, device="cpu"))
        assert torch.equal(torch.rand(1), expected_next)
    assert torch.equal(results[0].packed.payload, results[1].packed.payload)


def test_reported_metrics_are_those_of_the_packed_tables() -> None:
    data, stats = tiny_data()
    trained = train(data, stats, FullPrecision(), PROFILE, MODEL, QUICK, seed=0, device="cpu")
    embeddings = PackedTable(trained.packed, stats.first_rows)
    device = torch.device("cpu")
    for split, metrics in (("valid", trained.valid), ("test", trained.test)):
        batches = data.batches(split, 100)
        again = evaluate(trained.network, embeddings, batches, data.labels(split), device)
        # other batch sizes may round dot products differently
        assert again.auc == pytest.approx(metrics.auc, abs=1e-6)
        assert again.logloss == pytest.approx(metrics.logloss, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "most"),
    [(FullPrecision(), 0.0), (Uniform(bits=4), 1e-5), (Mpe(penalty=1e-6, groups=4), 1e-5), (Fp16(), 1e-5)],
    ids=lambda value: getattr(value, "name", None),
)
def test_packing_changes_the_trained_predictions_by_no_more_than_rounding(
    method: Method, most: float
) -> None:
    data, stats = tiny_data()
    trained = train(data, stats, method, PROFILE, MODEL, QUICK, seed=0, device="cpu")
    assert 0.0 <= trained.packing_difference <= most


def test_the_best_epoch_is_the_one_that_is_packed() -> None:
    overfit = TrainingConfig(
        batch_size=64, learning_rate=3e-2, epochs=8, patience=3, cut_factor=1.0, initial_std=0.05
    )
    trained = _train(training=overfit)
    curve = [epoch.valid.auc for epoch in trained.history]
    assert max(curve) > curve[-1], "this recipe is meant to overfit"
    assert trained.valid.auc == pytest.approx(max(curve), abs=1e-9)


def test_the_learning_rate_is_cut_and_training_stops_when_validation_stands_still() -> None:
    overfit = TrainingConfig(batch_size=64, learning_rate=3e-2, epochs=30, patience=2, initial_std=0.05)
    trained = _train(training=overfit)
    rates = [epoch.learning_rate for epoch in trained.history]
    assert len(rates) < 30
    assert rates[0] == pytest.approx(3e-2)
    assert min(rates) <= 3e-3 * 1.001
    assert rates == sorted(rates, reverse=True)


def test_a_table_that_settles_nothing_is_trained_once() -> None:
    Recording.made.clear()
    trained = _train(Recording())
    (table,) = Recording.made
    assert table.settled == 1
    assert {epoch.stage for epoch in trained.history} == {"learn"}
    steps = 3 * -(-3000 // 256)
    assert table.steps == list(range(1, steps + 1))
    assert (trained.ledger.steps, trained.ledger.samples, trained.ledger.epochs) == (steps, 9000, 3)


def test_a_table_that_asks_for_it_is_trained_again_with_a_fresh_schedule() -> None:
    Recording.made.clear()
    trained = _train(Recording(retrain=True))
    (table,) = Recording.made
    assert table.settled == 1
    assert [epoch.stage for epoch in trained.history] == ["learn"] * 3 + ["retrain"] * 3
    assert trained.history[3].learning_rate == pytest.approx(QUICK.learning_rate)
    assert trained.ledger.samples == 18000
    assert trained.test.auc > 0.8


def test_a_method_s_parameters_are_trained_by_their_own_rate_and_the_penalty_counts() -> None:
    Recording.made.clear()
    slow = QUICK.model_copy(update={"scale_learning_rate": 1e-6})
    fast = QUICK.model_copy(update={"scale_learning_rate": 1e-2})
    for training in (slow, fast):
        _train(Recording(), training)
    gates = [float(table.gate.detach()) for table in Recording.made]
    assert gates[0] == pytest.approx(1.0, abs=1e-4)
    assert abs(gates[1] - 1.0) > 0.05


def test_an_exploding_loss_is_reported_with_its_step_and_reason() -> None:
    data, stats = tiny_data(rows=600)
    labels, dense, ids = data.splits["train"]
    dense = dense.copy()
    dense[5, 0] = np.inf
    broken = TinyData({**data.splits, "train": (labels, dense, ids)}, data.dense, data.bags)
    with pytest.raises(Diverged, match=r"loss is (nan|inf) at step \d+ of stage 'learn'"):
        train(broken, stats, FullPrecision(), PROFILE, MODEL, QUICK, seed=0, device="cpu")


def test_nan_predictions_on_validation_are_divergence_too() -> None:
    data, stats = tiny_data(rows=600)
    labels, dense, ids = data.splits["valid"]
    dense = dense.copy()
    dense[0, 0] = np.nan
    broken = TinyData({**data.splits, "valid": (labels, dense, ids)}, data.dense, data.bags)
    with pytest.raises(Diverged, match=r"valid split after step 3: 1 of \d+ predictions are NaN"):
        train(broken, stats, FullPrecision(), PROFILE, MODEL, QUICK, seed=0, device="cpu")


def test_denormal_numbers_are_zero_while_training_and_the_mode_is_put_back() -> None:
    small = torch.full((4,), 1e-38)
    before = bool((small * 1e-2 == 0).all())
    with denormals_are_zero():
        assert (small * 1e-2 == 0).all()
        with denormals_are_zero():
            pass
        assert (small * 1e-2 == 0).all()
    assert bool((small * 1e-2 == 0).all()) == before


def test_progress_counts_epochs_and_ends_with_the_best_validation() -> None:
    data, stats = tiny_data(rows=600)
    seen: list[Progress] = []
    trained = train(
        data, stats, FullPrecision(), PROFILE, MODEL, QUICK, seed=0, device="cpu", progress=seen.append
    )
    last = seen[-1]
    assert (last.stage, last.epoch, last.epochs, last.step, last.steps_per_epoch) == ("learn", 3, 3, 9, 3)
    assert last.best is not None
    assert last.best.auc == max(epoch.valid.auc for epoch in trained.history)


def test_the_ledger_counts_rows_state_and_the_remembered_epoch() -> None:
    _, stats = tiny_data()
    trained = _train()
    row_bytes = 8 * 4
    rows = stats.rows * (3 * row_bytes + 4)  # weight, two moments, and a count of steps
    remembered = stats.rows * row_bytes
    assert rows <= trained.ledger.peak_table_bytes <= rows + remembered + 1024
    assert trained.ledger.peak_table_bytes >= rows + remembered
    assert trained.ledger.cpu_seconds > 0 and trained.ledger.peak_process_bytes > 10 * 2**20


@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "rowwise_adagrad"])
def test_every_optimizer_learns(optimizer: str) -> None:
    rate = 5e-3 if optimizer == "adam" else 5e-2
    training = QUICK.model_copy(update={"optimizer": optimizer, "learning_rate": rate})
    assert _train(training=training).test.auc > 0.78


def test_a_wrong_key_of_the_training_section_names_the_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'learning_rate'"):
        parse(TrainingConfig, {"learning_rat": 0.1}, "study.yaml")
    with pytest.raises(ConfigError, match="batch_size"):
        parse(TrainingConfig, {"batch_size": 0}, "study.yaml")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_comes_as_far() -> None:
    data, stats = tiny_data(bag=True)
    trained = train(data, stats, FullPrecision(), PROFILE, MODEL, QUICK, seed=0, device="cuda")
    assert trained.test.auc > 0.8


def test_batches_of_the_tiny_log_hold_every_example_once() -> None:
    data, _ = tiny_data(bag=True)
    seen: list[Batch] = list(data.batches("train", 256, shuffle_seed=1))
    assert sum(len(batch) for batch in seen) == data.rows("train")
    assert sum(float(batch.labels.sum()) for batch in seen) == data.labels("train").sum()
