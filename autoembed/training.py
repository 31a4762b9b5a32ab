"""Train one candidate: learn, settle, retrain if the method asks for it, pack, measure.

There is one loop. A stage ("learn", then maybe "retrain") starts with fresh optimizers and a fresh
schedule and ends with the weights of its best epoch on the validation split. `Table.settle` stands
between the stages: when it returns True it has put the rows in the state from which retraining starts;
the network keeps its weights. What is reported is measured on the packed tables.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.config import Section
from autoembed.data.batch import Batch
from autoembed.evaluate import EVALUATION_BATCH, evaluate
from autoembed.ledger import Ledger, Meter
from autoembed.methods.base import Method, Table, TableSpec
from autoembed.metrics import Metrics
from autoembed.models import ModelConfig, build_network
from autoembed.packed import Packed, PackedTable
from autoembed.plan import PlanBytes, Profile, plan_bytes
from autoembed.schedule import Plateau
from autoembed.stats import Stats
from autoembed_kernels.row_update import RowOptimizer

PROGRESS_SECONDS = 0.2  # at most so often, and after every epoch

Rate = Annotated[float, Field(gt=0.0, le=10.0)]


class TrainingConfig(Section):
    """The `training` section of a study file. Rates are per step, penalties are c / 2 * |w|^2."""

    batch_size: Annotated[int, Field(ge=1)] = 2048
    optimizer: Literal["adam", "adagrad", "rowwise_adagrad"] = "adam"
    learning_rate: Annotated[Rate, Field(description="network")] = 1e-3
    table_learning_rate: Annotated[Rate | None, Field(description="rows; as the network where absent")] = None
    scale_learning_rate: Annotated[Rate, Field(description="learned scales and gates of a method")] = 1e-3
    l2_rows: Annotated[float, Field(ge=0.0, description="on the rows that a step looks up")] = 0.0
    l2_network: Annotated[float, Field(ge=0.0, description="on the network's matrices")] = 0.0
    epochs: Annotated[int, Field(ge=1, description="at most, in each stage")] = 10
    patience: Annotated[int, Field(ge=1, description="epochs without a new best, then stop")] = 2
    cut_factor: Annotated[float, Field(gt=0.0, le=1.0, description="learning-rate cut")] = 0.1
    cut_patience: Annotated[int, Field(ge=1, description="epochs without a new best, then cut")] = 1
    metric: Annotated[Literal["auc", "logloss"], Field(description="what the best epoch is chosen by")] = (
        "auc"
    )
    initial_std: Annotated[float, Field(gt=0.0, le=1.0, description="of the rows")] = 0.01

    @property
    def row_optimizer(self) -> RowOptimizer:
        return RowOptimizer(self.optimizer, l2=self.l2_rows)


class Examples(Protocol):
    """What training reads of prepared data."""

    @property
    def dense(self) -> tuple[str, ...]: ...
    def rows(self, split: str) -> int: ...
    def labels(self, split: str) -> npt.NDArray[np.float32]: ...
    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]: ...


class Diverged(RuntimeError):
    """The loss is no longer a finite number; the message says at which step, and why it is believed."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. `step` counts within the stage; `best` is the best validation of the stage."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    best: Metrics | None
    seconds: float


@dataclass(frozen=True)
class Epoch:
    """One epoch as it went: mean training loss, validation afterwards, the network's learning rate."""

    stage: str
    epoch: int
    training_loss: float
    valid: Metrics
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """A trained candidate. Metrics are those of the packed tables under the network."""

    packed: Packed
    network: nn.Module
    valid: Metrics
    test: Metrics
    bytes: PlanBytes
    ledger: Ledger
    history: tuple[Epoch, ...]


def train(
    data: Examples,
    stats: Stats,
    method: Method,
    profile: Profile,
    model: ModelConfig,
    training: TrainingConfig,
    *,
    seed: int,
    device: torch.device | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train `method`'s tables under `model`. The same seed on one CPU thread gives the same result.

    device: a CUDA device if there is one, unless given. Raises Diverged where the loss or a prediction
    is not finite, ValueError where the profile cannot store what the method needs.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    seeds = torch.Generator().manual_seed(seed)
    spec = TableSpec(stats, model.dim, profile, training.initial_std)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_draw(seeds))  # dropout
        table = method.table(spec, _generator(seeds), training.row_optimizer).to(device)
        network = build_network(model, len(stats.fields), len(data.dense), _generator(seeds)).to(device)
        run = _Run(data, table, network, training, device, seeds, progress)
        run.stage("learn")
        if table.settle():
            run.stage("retrain")
        packed = table.pack()
    ledger = run.meter.read()
    embeddings = PackedTable(packed, stats.first_rows).to(device)
    valid, test = (run.evaluate(embeddings, split) for split in ("valid", "test"))
    return Trained(packed, network, valid, test, plan_bytes(packed.plan), ledger, tuple(run.history))


class _Run:
    """The state that the stages of one training share."""

    def __init__(
        self,
        data: Examples,
        table: Table,
        network: nn.Module,
        training: TrainingConfig,
        device: torch.device,
        seeds: torch.Generator,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.data = data
        self.table = table
        self.network = network
        self.training = training
        self.device = device
        self.seeds = seeds
        self.progress = progress
        self.meter = Meter()
        self.history: list[Epoch] = []

    def stage(self, name: str) -> None:
        """Epochs until the schedule has had enough; leaves the weights of the best one."""
        training = self.training
        schedule = Plateau(training.metric, training.patience, training.cut_patience, training.cut_factor)
        optimizer = _dense_optimizer(training, self.network, self.table)
        base_rates = [group["lr"] for group in optimizer.param_groups]
        best: dict[str, dict[str, Tensor]] | None = None
        step = 0
        for epoch in range(1, training.epochs + 1):
            started = time.perf_counter()
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * schedule.rate
            loss, step = self._epoch(name, epoch, step, schedule, optimizer)
            valid = self.evaluate(self.table, "valid")
            seconds = time.perf_counter() - started
            learning_rate = training.learning_rate * schedule.rate
            self.history.append(Epoch(name, epoch, loss, valid, learning_rate, seconds))
            self.meter.epochs += 1
            is_best = schedule.saw(epoch, valid)
            self._report(name, epoch, step, schedule)
            if schedule.exhausted:
                break
            if is_best and epoch < training.epochs:
                best = None  # free the old copy before the new one is made
                best = _snapshot(self.table, self.network)
                self.meter.holds(self.table.training_bytes + _nbytes(best["table"]))
        if best is not None and schedule.best_epoch != epoch:
            self.table.load_state_dict(best["table"])
            self.network.load_state_dict(best["network"])

    def _epoch(
        self, stage: str, epoch: int, step: int, schedule: Plateau, optimizer: torch.optim.Optimizer
    ) -> tuple[float, int]:
        """One pass over the training split -> mean loss, and the number of steps of the stage so far."""
        training, table = self.training, self.table
        row_rate = (training.table_learning_rate or training.learning_rate) * schedule.rate
        # reading a loss back waits for a GPU, so it is done rarely there
        check_every = 1 if self.device.type == "cpu" else 50
        total = torch.zeros((), device=self.device)
        reported = time.perf_counter()
        self.network.train()
        table.train()
        batches = self.data.batches("train", training.batch_size, shuffle_seed=_draw(self.seeds))
        for batch in batches:
            batch = batch.to(self.device)
            optimizer.zero_grad(set_to_none=True)
            logits = self.network(batch.dense, table(batch))
            loss = binary_cross_entropy_with_logits(logits, batch.labels)
            total += loss.detach() * len(batch)
            penalty = table.penalty()
            if penalty is not None:
                loss = loss + penalty
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            table.update(row_rate)
            step += 1
            table.after_step(step)
            self.meter.saw(len(batch))
            self.meter.holds(table.training_bytes)
            if step % check_every == 0:
                _refuse_divergence(float(loss.detach()), stage, step)
            if self.progress and time.perf_counter() - reported > PROGRESS_SECONDS:
                reported = time.perf_counter()
                self._report(stage, epoch, step, schedule)
        mean = float(total) / max(self.data.rows("train"), 1)
        _refuse_divergence(mean, stage, step)
        return mean, step

    def evaluate(self, embeddings: nn.Module, split: str) -> Metrics:
        """Metrics of the network over `embeddings` on one split. Raises Diverged."""
        batches = self.data.batches(split, EVALUATION_BATCH)
        try:
            return evaluate(self.network, embeddings, batches, self.data.labels(split), self.device)
        except ValueError as error:
            raise Diverged(f"{split} split after step {self.meter.steps}: {error}") from None

    def _report(self, stage: str, epoch: int, step: int, schedule: Plateau) -> None:
        if self.progress:
            steps_per_epoch = -(-self.data.rows("train") // self.training.batch_size)
            self.progress(
                Progress(
                    stage,
                    epoch,
                    self.training.epochs,
                    step,
                    steps_per_epoch,
                    schedule.best,
                    self.meter.seconds,
                )
            )


def _dense_optimizer(training: TrainingConfig, network: nn.Module, table: Table) -> torch.optim.Optimizer:
    """Trains the network, and a method's scales and gates at their own rate without weight decay."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.l2_network},
        {"params": [p for p in parameters if p.ndim <= 1]},
    ]
    learned = [p for p in table.parameters() if p.requires_grad]
    if learned:
        groups.append({"params": learned, "lr": training.scale_learning_rate})
    if training.optimizer == "adam":
        return torch.optim.Adam(groups, lr=training.learning_rate, fused=True)
    return torch.optim.Adagrad(groups, lr=training.learning_rate, eps=1e-8)


def _refuse_divergence(loss: float, stage: str, step: int) -> None:
    if not math.isfinite(loss):
        raise Diverged(
            f"the training loss is {loss} at step {step} of stage {stage!r}; "
            "lower the learning rates or raise the penalties"
        )


def _snapshot(table: nn.Module, network: nn.Module) -> dict[str, dict[str, Tensor]]:
    return {
        name: {key: value.clone() for key, value in module.state_dict().items()}
        for name, module in (("table", table), ("network", network))
    }


def _nbytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _draw(seeds: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=seeds))


def _generator(seeds: torch.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(_draw(seeds))
