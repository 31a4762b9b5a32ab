"""Training throughput: AutoEmbed's full-precision training step against torch's EmbeddingBags.

A generated workload of Criteo's shape: 26 tables with Criteo-Kaggle cardinalities (capped), Zipf ids,
13 dense columns, batch 2048, dimension 16, MLPs 512-256-64-16 and 512-256-1. Both sides train the same
network on the same batches in one process, taking turns; each turn is one measurement. With one thread the
ratio of processor seconds is the one to read: neighbours on the machine disturb it less than wall clock.

    python studies/bench_training.py                    1 and 2 threads, writes results/bench_training.json
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.data.batch import Batch
from autoembed.methods.base import TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.models import ModelConfig, build_network
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_update import RowOptimizer

# fmt: off
CRITEO_KAGGLE = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10,
    5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)
# fmt: on
DENSE = 13
MODEL = ModelConfig(name="dlrm", dim=16, bottom=(512, 256, 64), hidden=(512, 256), concat_embeddings=False)

Step = Callable[[Batch], None]


@dataclass(frozen=True)
class Turn:
    """One turn of one side: samples trained on, and the wall-clock and processor seconds they took."""

    samples: int
    seconds: float
    cpu_seconds: float


def generated_batches(rows: tuple[int, ...], batch_size: int, count: int, seed: int) -> list[Batch]:
    """Zipf ids with exponent 1: the chance of rank r is about proportional to 1 / r."""
    random = np.random.default_rng(seed)
    sizes = np.array(rows)
    batches = []
    for _ in range(count):
        ids = np.minimum(sizes ** random.random((batch_size, len(rows))), sizes - 1).astype(np.int64)
        dense = random.normal(size=(batch_size, DENSE)).astype(np.float32)
        labels = (random.random(batch_size) < 0.25).astype(np.float32)
        batches.append(Batch(torch.from_numpy(labels), torch.from_numpy(dense), torch.from_numpy(ids), {}))
    return batches


def network(fields: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    built = build_network(MODEL, fields, DENSE, torch.Generator().manual_seed(0))
    return built, torch.optim.Adam(built.parameters(), lr=1e-3, fused=True)


def autoembed_step(rows: tuple[int, ...]) -> Step:
    stats = Stats(tuple(FieldStats(f"C{i}", np.zeros(r, dtype=np.int64)) for i, r in enumerate(rows)))
    spec = TableSpec(stats, MODEL.dim, PROFILES["packed"])
    table = FullPrecision().table(spec, torch.Generator().manual_seed(0), RowOptimizer("adam"))
    over, optimizer = network(len(rows))

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = over(batch.dense, table(batch))
        binary_cross_entropy_with_logits(logits, batch.labels).backward()
        optimizer.step()
        table.update(1e-3)

    return step


def torch_step(rows: tuple[int, ...]) -> Step:
    bags = nn.ModuleList(nn.EmbeddingBag(r, MODEL.dim, mode="sum", sparse=True) for r in rows)
    over, optimizer = network(len(rows))
    sparse_optimizer = torch.optim.SparseAdam(list(bags.parameters()), lr=1e-3)

    def step(batch: Batch) -> None:
        optimizer.zero_grad(set_to_none=True)
        sparse_optimizer.zero_grad(set_to_none=True)
        offsets = torch.arange(len(batch))
        vectors = [bag(batch.ids[:, i].contiguous(), offsets) for i, bag in enumerate(bags)]
        logits = over(batch.dense, torch.stack(vectors, dim=1))
        binary_cross_entropy_with_logits(logits, batch.labels).backward()
        optimizer.step()
        sparse_optimizer.step()

    return step


def take_turns(sides: dict[str, Step], batches: list[Batch], turns: int, steps: int) -> dict[str, list[Turn]]:
    """`turns` turns of `steps` steps each, one side after the other; the first turn is not counted."""
    taken: dict[str, list[Turn]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        chosen = [batches[(turn * steps + i) % len(batches)] for i in range(steps)]
        for name, step in sides.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            for batch in chosen:
                step(batch)
            seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
            if turn:
                taken[name].append(Turn(sum(map(len, chosen)), seconds, cpu_seconds))
    return taken


def summary(values: list[float], digits: int) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, digits), "p25": round(low, digits), "p75": round(high, digits)}


def compare(taken: dict[str, list[Turn]], threads: int) -> dict[str, object]:
    """Print both sides and their ratios -> the same for the results file."""
    ours, theirs = taken.values()
    ratios = {
        "wall": summary([b.seconds / a.seconds for a, b in zip(ours, theirs, strict=True)], 3),
        "processor": summary([b.cpu_seconds / a.cpu_seconds for a, b in zip(ours, theirs, strict=True)], 3),
    }
    rates = {
        name: {
            "wall": summary([turn.samples / turn.seconds for turn in turns], 0),
            "processor": summary([turn.samples / turn.cpu_seconds for turn in turns], 0),
        }
        for name, turns in taken.items()
    }
    for name, rate in rates.items():
        print(
            f"{threads} threads  {name:32s} {rate['wall']['median']:8,.0f} samples/s wall clock, "
            f"{rate['processor']['median']:8,.0f} per processor second"
        )
    for clock, ratio in ratios.items():
        print(
            f"{threads} threads  {clock:9s} ratio {ratio['median']:.2f}x "
            f"(quartiles {ratio['p25']:.2f}-{ratio['p75']:.2f})"
        )
    return {"threads": threads, "turns": len(ours), "samples_per_second": rates, "ratio": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cap", type=int, default=1_000_000, help="largest table, in rows")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "bench_training.json")
    arguments = parser.parse_args()

    rows = tuple(min(r, arguments.cap) for r in CRITEO_KAGGLE)
    batches = generated_batches(rows, arguments.batch_size, 40, seed=0)
    sides = {"autoembed": autoembed_step(rows), "torch EmbeddingBag + SparseAdam": torch_step(rows)}
    results = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        taken = take_turns(sides, batches, arguments.turns, arguments.steps)
        results.append(compare(taken, threads))
    report = {
        "workload": {
            "rows": sum(rows),
            "tables": len(rows),
            "largest_table_rows": max(rows),
            "dim": MODEL.dim,
            "batch_size": arguments.batch_size,
            "bottom": [*MODEL.bottom, MODEL.dim],
            "top": [*MODEL.hidden, 1],
        },
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "results": results,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.processor()


if __name__ == "__main__":
    main()
