"""The one training loop: epochs of one stage under a schedule, with the best epoch's weights kept."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.data.batch import Batch
from autoembed.evaluate import EVALUATION_BATCH, evaluate, predict
from autoembed.ledger import Meter
from autoembed.lone_rows import trained_rows, without_lone_row
from autoembed.methods.base import Table
from autoembed.metrics import Metrics
from autoembed.schedule import Plateau
from autoembed.training_config import TrainingConfig

PROGRESS_SECONDS = 0.2  # at most so often, and after every epoch


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


class Run:
    """The state that the stages of one training share.

    Raises ConfigError where batches of one row are to be normalised.
    """

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
        self.epoch_rows = trained_rows(data.rows("train"), training.batch_size, network)
        self.meter = Meter()
        self.history: list[Epoch] = []

    def stage(self, name: str) -> None:
        """Epochs until the schedule has had enough; leaves the weights of the best one."""
        training = self.training
        schedule = Plateau(training.metric, training.patience, training.cut_patience, training.cut_factor)
        optimizers = training.dense_optimizers(self.network, self.table)
        rates = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
        best: dict[str, dict[str, Tensor]] | None = None
        step = 0
        for epoch in range(1, training.epochs + 1):
            started = time.perf_counter()
            for group, rate in rates:
                group["lr"] = rate * schedule.rate
            loss, step = self._epoch(name, epoch, step, schedule, optimizers)
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
        self, stage: str, epoch: int, step: int, schedule: Plateau, optimizers: list[torch.optim.Optimizer]
    ) -> tuple[float, int]:
        """One pass over the training split -> mean loss, and the number of steps of the stage so far."""
        training, table = self.training, self.table
        row_rate = (training.table_learning_rate or training.learning_rate) * schedule.rate
        # reading a loss back waits for a GPU, so it is done rarely there
        check_every = 1 if self.device.type == "cpu" else 50
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        reported = time.perf_counter()
        self.network.train()
        table.train()
        batches = self.data.batches("train", training.batch_size, shuffle_seed=draw_seed(self.seeds))
        for batch in without_lone_row(batches, self.network):
            batch = batch.to(self.device)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            logits = self.network(batch.dense, table(batch))
            loss = binary_cross_entropy_with_logits(logits, batch.labels)
            total += loss.detach() * len(batch)
            penalty = table.penalty()
            if penalty is not None:
                loss = loss + penalty
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
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
        mean = float(total) / max(self.epoch_rows, 1)
        _refuse_divergence(mean, stage, step)
        return mean, step

    def evaluate(self, embeddings: nn.Module, split: str) -> Metrics:
        """Metrics of the network over `embeddings` on one split. Raises Diverged."""
        batches = self.data.batches(split, EVALUATION_BATCH)
        try:
            return evaluate(self.network, embeddings, batches, self.data.labels(split), self.device)
        except ValueError as error:
            raise Diverged(f"{split} split after step {self.meter.steps}: {error}") from None

    def packing_difference(self, embeddings: nn.Module) -> float:
        """The largest difference of a probability between the trained table and `embeddings`, on valid."""
        trained, packed = (
            torch.from_numpy(
                predict(self.network, rows, self.data.batches("valid", EVALUATION_BATCH), self.device)
            ).sigmoid()
            for rows in (self.table, embeddings)
        )
        return float((trained - packed).abs().max()) if len(trained) else 0.0

    def _report(self, stage: str, epoch: int, step: int, schedule: Plateau) -> None:
        if self.progress:
            steps_per_epoch = -(-self.epoch_rows // self.training.batch_size)
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


def draw_seed(seeds: torch.Generator) -> int:
    """A seed for one shuffle, one initialisation, or the like."""
    return int(torch.randint(2**62, (), generator=seeds))
