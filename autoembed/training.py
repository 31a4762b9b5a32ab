"""Train one candidate: learn, settle, retrain if the method asks for it, pack, measure.

A stage ("learn", then maybe "retrain") starts with fresh optimizers and a fresh schedule and ends with
the weights of its best epoch on the validation split. `Table.settle` stands between the stages: when it
returns True it has put the rows in the state from which retraining starts; the network keeps its
weights. What is reported is measured on the packed tables.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from autoembed.companions import companion_of
from autoembed.ledger import Ledger
from autoembed.methods.base import Method, TableSpec
from autoembed.metrics import Metrics
from autoembed.models import ModelConfig, build_network
from autoembed.packed import Packed, PackedTable
from autoembed.plan import PlanBytes, Profile, plan_bytes
from autoembed.stats import Stats
from autoembed.training_config import TrainingConfig as TrainingConfig
from autoembed.training_loop import Diverged as Diverged
from autoembed.training_loop import Epoch, Examples, Run, draw_seed
from autoembed.training_loop import Progress as Progress


@dataclass(frozen=True)
class Trained:
    """A trained candidate. Metrics are those of the packed tables under the network.

    `packing_difference` is the largest change of a validation probability by packing the trained table.
    """

    packed: Packed
    network: nn.Module
    valid: Metrics
    test: Metrics
    bytes: PlanBytes
    ledger: Ledger
    history: tuple[Epoch, ...]
    packing_difference: float


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
    is not finite, ValueError where the profile cannot store what the method needs, ConfigError where batches
    of one row are to be normalised.
    """
    device = _device(device)
    with denormals_are_zero():
        run = trained_run(data, stats, method, profile, model, training, seed, device, progress)
        packed = run.table.pack()
        ledger = run.meter.read()
        embeddings = PackedTable(packed, stats.first_rows).to(device)
        valid, test = (run.evaluate(embeddings, split) for split in ("valid", "test"))
        difference = run.packing_difference(embeddings)
    return Trained(
        packed, run.network, valid, test, plan_bytes(packed.plan), ledger, tuple(run.history), difference
    )


def trained_run(
    data: Examples,
    stats: Stats,
    method: Method,
    profile: Profile,
    model: ModelConfig,
    training: TrainingConfig,
    seed: int,
    device: torch.device | str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """All stages of one training, as `train` runs them: the trained table and network, not yet packed."""
    device = _device(device)
    seeds = torch.Generator().manual_seed(seed)
    companions = {asked: companion_of(asked, data, stats) for asked in method.companions()}
    spec = TableSpec(stats, model.dim, profile, training.initial_std, companions)
    forked = [device] if device.type == "cuda" else []
    with denormals_are_zero(), torch.random.fork_rng(devices=forked):
        torch.manual_seed(draw_seed(seeds))  # dropout
        table = method.table(spec, _generator(seeds), training.row_optimizer).to(device)
        del companions, spec  # the table keeps what it needs of them, and counts it
        network = build_network(model, len(stats.fields), len(data.dense), _generator(seeds)).to(device)
        run = Run(data, table, network, training, device, seeds, progress)
        run.stage("learn")
        if table.settle():
            run.stage("retrain")
    return run


@contextmanager
def denormals_are_zero() -> Iterator[None]:
    """Float32 below 1.2e-38 reads as zero in this thread, and in threads that it starts meanwhile.

    Weight decay drives the weights of units that died towards zero without end. Once they are denormal,
    a processor multiplies them in microcode: an epoch of ml1m took 95 s in place of 14 s, with the same
    metrics to five digits.
    """
    already = float(torch.full((1,), 1e-38) * 1e-2) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def _device(device: torch.device | str | None) -> torch.device:
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _generator(seeds: torch.Generator) -> torch.Generator:
    return torch.Generator().manual_seed(draw_seed(seeds))
