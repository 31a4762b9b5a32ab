"""Rows of 16 and 8 bits while training: nearest against stochastic rounding, bytes held, throughput.

    python studies/low_precision/run.py [--prepared DIR] [--seeds 3]    # accuracy.csv
    python studies/low_precision/run.py --throughput [--rounds 12]      # throughput.csv

The tuned full-precision recipe of studies/references/epinions.yaml, one epoch, which is the best one there,
with the rows' learning rate as it is, a hundredth and a thousandth of it; the network's rate is never
changed. `table_bytes` are the bytes of the tensors that hold rows and their steps while training,
`state_bytes` those of the optimizer's state. Throughput: rounds of the same 40 steps, a round of every
setting in turn, CPU seconds of the process on one thread.
"""

import argparse
import csv
import itertools
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.config import Section, load
from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.methods import make_method
from autoembed.methods.base import TableSpec
from autoembed.models import ModelConfig, build_network
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig, denormals_are_zero, train
from autoembed_kernels.row_update import RowOptimizer

HERE = Path(__file__).parent
PROFILE = PROFILES["packed-row-scale"]
SHARES = (1.0, 0.01, 0.001)  # of the recipe's rate for rows
SETTINGS: tuple[tuple[str, str], ...] = (
    ("fp32", ""),
    *itertools.product(("fp16", "bf16", "int8"), ("stochastic", "nearest")),
)
STEPS = 40  # of a round


class Recipe(Section):
    """A tuned full-precision recipe of studies/references."""

    data: str
    model: ModelConfig
    training: TrainingConfig


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepared", type=Path, default=Path("prepared"), help="folder of prepared data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--throughput", action="store_true")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(Recipe, HERE.parent / "references" / "epinions.yaml")
    data = prepare(load_data_config(HERE.parent / "data" / "epinions.yaml"), options.prepared / "epinions")
    if options.throughput:
        throughput(recipe, data, options.rounds)
    else:
        accuracy(recipe, data, options.seeds)


def method_of(format: str, rounding: str) -> Any:
    if format == "fp32":
        return make_method("full_precision", {})
    return make_method("low_precision", {"format": format, "rounding": rounding})


def accuracy(recipe: Recipe, data: Any, seeds: int) -> None:
    stats = stats_of(data)
    spec = TableSpec(stats, recipe.model.dim, PROFILE, recipe.training.initial_std)
    rows: list[dict[str, Any]] = []
    for seed, share, (format, rounding) in itertools.product(range(1, 1 + seeds), SHARES, SETTINGS):
        assert recipe.training.table_learning_rate is not None
        rate = share * recipe.training.table_learning_rate
        training = recipe.training.model_copy(update={"epochs": 1, "table_learning_rate": rate})
        method = method_of(format, rounding)
        held, state = bytes_held(method, spec, training.optimizer)
        run = train(data, stats, method, PROFILE, recipe.model, training, seed=seed)
        rows.append(
            {
                **{"format": format, "rounding": rounding, "table_learning_rate": f"{rate:g}", "seed": seed},
                **{"table_bytes": held, "state_bytes": state, "file_bytes": run.bytes.total},
                "valid_auc": round(run.valid.auc, 5),
                "test_auc": round(run.test.auc, 5),
                "test_logloss": round(run.test.logloss, 5),
            }
        )
        print(rows[-1], flush=True)
        write("accuracy.csv", rows)


def bytes_held(method: Any, spec: TableSpec, optimizer: str) -> tuple[int, int]:
    """Bytes of the tensors of a fresh table: rows and steps, and the optimizer's state beside them."""
    generator = torch.Generator().manual_seed(0)
    bare = method.table(spec, generator, RowOptimizer("sgd")).training_bytes
    return bare, method.table(spec, generator, RowOptimizer(optimizer)).training_bytes - bare


def throughput(recipe: Recipe, data: Any, rounds: int) -> None:
    """The CPU seconds of every round of every setting, in turn."""
    training, stats = recipe.training, stats_of(data)
    spec = TableSpec(stats, recipe.model.dim, PROFILE, training.initial_std)
    batches = list(itertools.islice(data.batches("train", training.batch_size, shuffle_seed=1), STEPS))
    runs = []
    for format, rounding in SETTINGS:
        generator = torch.Generator().manual_seed(1)
        table = method_of(format, rounding).table(spec, generator, training.row_optimizer)
        network = build_network(recipe.model, len(stats.fields), len(data.dense), generator)
        runs.append((format, rounding, table, network, training.dense_optimizers(network, table)))
    rows: list[dict[str, Any]] = []
    with denormals_are_zero():
        for number in range(rounds + 1):
            for format, rounding, table, network, optimizers in runs:
                started = time.process_time()
                for batch in batches:
                    for optimizer in optimizers:
                        optimizer.zero_grad(set_to_none=True)
                    loss = binary_cross_entropy_with_logits(network(batch.dense, table(batch)), batch.labels)
                    loss.backward()  # type: ignore[no-untyped-call]
                    for optimizer in optimizers:
                        optimizer.step()
                    table.update(training.table_learning_rate)
                seconds = time.process_time() - started
                if number:  # the first warms up
                    examples = sum(len(batch) for batch in batches)
                    row = {"format": format, "rounding": rounding, "round": number}
                    rows.append(
                        row
                        | {"cpu_seconds": round(seconds, 4), "examples_per_second": round(examples / seconds)}
                    )
    write("throughput.csv", rows)


def write(name: str, rows: list[dict[str, Any]]) -> None:
    with (HERE / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
