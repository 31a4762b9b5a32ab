"""What a process really holds while FIITED trains: peak resident bytes at 65 %, 90 % and 99 % pruning.

    python studies/fiited/resident.py [--ids 2000000] [--steps 60]

Every setting is built and trained in a process of its own: `--steps` steps of 2048 Zipf look-ups of
dimension 16 into one field, Adagrad, a round of eviction and admission every 10 steps; no network, no
examples, no remembered epoch. `counted_bytes` is what the table says that it holds, `peak_bytes` the most
that was resident since before the table was made, less what was resident then (/proc, Linux), so whatever a
step, a round or the building needs for a moment is in it. Written to resident.csv beside this file.
"""

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from autoembed.data.batch import Batch
from autoembed.methods import make_method
from autoembed.methods.base import TableSpec
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_update import RowOptimizer

HERE = Path(__file__).parent
SETTINGS = (
    ("full_precision", "", ""),
    *(("fiited", keep, chunks) for chunks in ("4", "1") for keep in ("0.35", "0.1", "0.01")),
)
COLUMNS = ("method", "keep", "chunks", "ids", "counted_bytes", "peak_bytes")
DIM, BATCH = 16, 2048
# freed blocks go back at once, so that the peak is of what was held and not of what the heap kept
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ids", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", nargs=3, metavar=("METHOD", "KEEP", "CHUNKS"), help="measure one, in here")
    options = parser.parse_args()
    if options.only:
        print(*measured(*options.only, options.ids, options.steps))
        return
    with (HERE / "resident.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for setting in SETTINGS:
            size = [f"--ids={options.ids}", f"--steps={options.steps}"]
            found = subprocess.run(
                [sys.executable, __file__, *size, "--only", *setting],
                env={**os.environ, **ALLOCATOR},
                check=True,
                capture_output=True,
                text=True,
            )
            row = [*setting, options.ids, *map(int, found.stdout.split())]
            writer.writerow(row)
            print(*row)


def measured(name: str, keep: str, chunks: str, ids: int, steps: int) -> tuple[int, int]:
    """Bytes that the trained table counts, and the peak of the process beyond what it held before."""
    stats = one_field(ids)
    trained(name, keep, chunks, one_field(1000), 20)  # loads code that would count as memory of the table
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    counted = trained(name, keep, chunks, stats, steps)
    return counted, status_bytes("VmHWM") - before


def one_field(ids: int) -> Stats:
    return Stats((FieldStats("user", np.ones(ids, dtype=np.int64)),))


def trained(name: str, keep: str, chunks: str, stats: Stats, steps: int) -> int:
    """Build and train a table; the bytes that it counts in the end."""
    knobs = {"keep": float(keep), "chunks": int(chunks), "interval": 10} if keep else {}
    spec = TableSpec(stats, DIM, PROFILES["packed"], initial_std=0.01)
    table = make_method(name, knobs).table(spec, torch.Generator().manual_seed(1), RowOptimizer("adagrad"))
    generator = np.random.default_rng(2)
    for step in range(1, steps + 1):
        rows = torch.from_numpy(generator.zipf(1.1, BATCH) % stats.rows).unsqueeze(1)
        example = Batch(torch.zeros(BATCH), torch.zeros(BATCH, 0), rows, {})
        (table(example) - 1).square().mean().backward()
        table.update(0.05)
        table.after_step(step)
    return table.training_bytes


def status_bytes(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no line {name!r}; this measurement needs Linux")


if __name__ == "__main__":
    main()
