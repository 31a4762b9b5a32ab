"""Stores and shared rows on a CPU: C++ against torch, in turns in one process, processor time of one thread.

The workload is that of cpu.py with at most half a million rows a field: batch 2048, one id for each of the 26
fields of Criteo Kaggle, from Zipf's law. Chunks are 4 of a vector, and the pool has a tenth of all.

    python kernels/bench/cpu_stores.py                    all pieces, writes cpu_stores.json beside this file
    python kernels/bench/cpu_stores.py chunks             some of them; the record keeps the others

`table step` is what a method does of a training step: the look-up, the gradients of its values, the update.
"""

import argparse
import importlib
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from cpu import BATCH, BATCHES, FIELDS, ROWS, batches, keep_memory, processor
from torch import Tensor

from autoembed.data.batch import Batch
from autoembed.lookup import Lookup
from autoembed.methods import make_method
from autoembed.methods.base import Table, TableSpec
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.cache_probe import cache_probe, torch_cache_probe
from autoembed_kernels.chunk_look_up import chunk_look_up, torch_chunk_look_up
from autoembed_kernels.chunk_rounds import choose_moves, torch_choose_moves
from autoembed_kernels.chunk_step import chunk_step, torch_chunk_step
from autoembed_kernels.chunk_store import ChunkStore
from autoembed_kernels.dedupe import dedupe, sum_repeats
from autoembed_kernels.look_up_packed import stored_rows
from autoembed_kernels.look_up_shared import look_up_shared, torch_look_up_shared
from autoembed_kernels.native.loader import library
from autoembed_kernels.row_cache import RowCache
from autoembed_kernels.row_update import RowOptimizer

MOST_ROWS = 500_000
SIZES = tuple(min(rows, MOST_ROWS) for rows in ROWS)
FIRST = torch.tensor([0, *SIZES]).cumsum(0)[:-1]
TOTAL, LOOKUPS, RATE = sum(SIZES), BATCH * FIELDS, 1e-3
CHUNKS, KEEP, DECAY, MARGIN = 4, 0.1, 0.98, 0.1

Candidate = Callable[[int], object]


@dataclass(frozen=True)
class Piece:
    """Ratios: name -> (the peer, ours); higher is better for ours. Times are for each of `per_call`."""

    unit: str
    per_call: float
    candidates: dict[str, Candidate]
    ratios: dict[str, tuple[str, str]]


def measured(piece: Piece, rounds: int) -> dict[str, dict[str, float]]:
    """Median and quartiles of every candidate; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in piece.candidates}
    order = random.Random(0)
    for counted in range(rounds + 1):
        for batch in range(BATCHES):
            for name in order.sample(list(times), len(times)):
                started = time.thread_time_ns()
                piece.candidates[name](batch)
                taken = (time.thread_time_ns() - started) / piece.per_call
                if counted:
                    times[name].append(taken)
    found = {}
    for name, taken_times in times.items():
        low, median, high = statistics.quantiles(taken_times, n=4)
        found[name] = {"median": round(median, 3), "p25": round(low, 3), "p75": round(high, 3)}
    return found


def looked_up() -> list[Tensor]:
    """Rows over all fields (LOOKUPS,) of every batch."""
    return [(torch.minimum(ids, torch.tensor(SIZES) - 1) + FIRST).flatten() for ids in batches()]


def stats() -> Stats:
    """Counts that fall with the rank."""
    counts = [np.maximum(1, 1_000_000 // np.arange(1, rows + 1)) for rows in SIZES]
    return Stats(tuple(FieldStats(f"C{number}", held) for number, held in enumerate(counts)))


def table_of(name: str, knobs: dict[str, object], dim: int, optimizer: str) -> Table:
    spec = TableSpec(stats(), dim, PROFILES["packed-row-scale"], initial_std=0.01)
    return make_method(name, knobs).table(spec, torch.Generator().manual_seed(0), RowOptimizer(optimizer))


def table_step(table: Table, rows: list[Tensor], gradient: Tensor) -> Candidate:
    batch = Batch(
        torch.zeros(BATCH), torch.zeros(BATCH, 0), torch.zeros(BATCH, FIELDS, dtype=torch.int64), {}
    )
    lookup = [Lookup(each, batch, tuple(range(FIELDS))) for each in rows]

    def step(i: int) -> None:
        table.values(lookup[i]).backward(gradient)  # type: ignore[no-untyped-call]
        table.update(RATE)

    return step


@contextmanager
def torch_alone(*names: str) -> Iterator[None]:
    """These operations find no library; what they call does."""
    with ExitStack() as stack:
        for name in names:
            module = importlib.import_module(f"autoembed_kernels.{name}")
            stack.enter_context(patch.object(module, "native_for", lambda *tensors: None))
        yield


def without(names: tuple[str, ...], candidate: Candidate) -> Candidate:
    def call(i: int) -> None:
        with torch_alone(*names):
            candidate(i)

    return call


def named(ratios: dict[str, tuple[str, str]], dim: int) -> dict[str, tuple[str, str]]:
    return ratios if dim == 16 else {f"{name}_dim{dim}": pair for name, pair in ratios.items()}


def filled_store(dim: int, rows: list[Tensor], optimizer: RowOptimizer) -> ChunkStore:
    """A store after a step on every batch, its pool full."""
    places = int(KEEP * TOTAL * CHUNKS)
    store = ChunkStore(TOTAL, CHUNKS, dim, places, optimizer, 0.01, torch.Generator().manual_seed(0))
    for batch in rows:
        unique, _ = dedupe(batch, TOTAL)
        store.admit(unique)
        store.step(unique, torch.randn(len(unique), dim), RATE)
    store.admit(torch.randperm(TOTAL)[: places // CHUNKS])
    return store


def chunks(dim: int) -> Piece:
    """Look-up through the table of pointers, and utilities and updates from the look-ups' gradients."""
    rows, optimizer = looked_up(), RowOptimizer("adagrad")
    store = filled_store(dim, rows, optimizer)
    gradient = 0.01 * torch.randn(LOOKUPS, dim)
    held = (optimizer, store.pool, store.state, store.utility, store.pointers)

    def ours(i: int) -> None:
        unique, repeats = dedupe(rows[i], TOTAL)
        chunk_step(*held, unique, gradient, RATE, repeats)

    def by_torch(i: int) -> None:
        unique, repeats = dedupe(rows[i], TOTAL)
        torch_chunk_step(*held, unique, sum_repeats(gradient, repeats.order, repeats.starts), RATE)

    places = (store.pool, store.pointers, None)
    candidates: dict[str, Candidate] = {
        "look-up, ours": lambda i: chunk_look_up(*places, rows[i]),
        "look-up, torch": lambda i: torch_chunk_look_up(*places, rows[i]),
        "dedupe and step, ours": ours,
        "dedupe and step, torch": by_torch,
    }
    ratios = {
        "chunk_look_up_vs_torch_path": ("look-up, torch", "look-up, ours"),
        "chunk_step_vs_torch_path": ("dedupe and step, torch", "dedupe and step, ours"),
    }
    return Piece("ns per look-up", LOOKUPS, candidates, named(ratios, dim))


def chunk_round() -> Piece:
    """Decay, and the choice of chunks that leave and come, over all chunks of all ids."""
    rows = looked_up()
    store = filled_store(16, rows, RowOptimizer("sgd"))
    threshold = store._threshold(DECAY, None)
    bounds = ((1 - MARGIN) * threshold, (1 + MARGIN) * threshold)
    utility = store.utility.clone()

    def round_of(choose: Callable[..., object]) -> Candidate:
        # a decay of 1 leaves what the next candidate finds
        return lambda i: choose(store.pointers, utility, 1.0, *bounds)

    candidates = {"ours": round_of(choose_moves), "torch": round_of(torch_choose_moves)}
    ratios = {"chunk_round_vs_torch_path": ("torch", "ours")}
    return Piece("ns per chunk", store.utility.numel(), candidates, ratios)


CHUNK_OPERATIONS = ("chunk_look_up", "chunk_step", "chunk_rounds")


def fiited(dim: int) -> Piece:
    """A step of FIITED's table against one of full precision, Adagrad."""
    rows, gradient = looked_up(), 0.01 * torch.randn(LOOKUPS, dim)
    knobs: dict[str, object] = {"keep": KEEP, "chunks": CHUNKS}
    step = table_step(table_of("fiited", knobs, dim, "adagrad"), rows, gradient)
    by_torch = table_step(table_of("fiited", knobs, dim, "adagrad"), rows, gradient)
    plain = table_step(table_of("full_precision", {}, dim, "adagrad"), rows, gradient)
    candidates: dict[str, Candidate] = {
        "full precision": plain,
        "fiited": step,
        "fiited, torch": without(CHUNK_OPERATIONS, by_torch),
    }
    ratios = {
        "fiited_step_vs_torch_path": ("fiited, torch", "fiited"),
        "fiited_step_vs_full_precision": ("full precision", "fiited"),
    }
    return Piece("ns per look-up", LOOKUPS, candidates, named(ratios, dim))


def packed_table(method: str, knobs: dict[str, object], dim: int) -> PackedTable:
    """Random rows of all fields under the plan of a method."""
    table = table_of(method, knobs, dim, "sgd")
    return PackedTable(table.pack())


def shared(method: str, knobs: dict[str, object], dim: int) -> Piece:
    """Packed look-ups of rows that share what is stored, against the torch path."""
    rows, table = looked_up(), packed_table(method, knobs, dim)
    held = (table.words, *table._held(), table.shared.rows())

    def apart(i: int) -> object:
        _, segment, stored = stored_rows(held[2], rows[i])
        pool = table.pool_address.pool
        if pool is None:
            return table._read(held[1], segment, stored)
        return table._with_pool(pool, held[1], segment, stored)

    candidates: dict[str, Candidate] = {
        "addresses by torch, then C++": apart,
        "ours": lambda i: look_up_shared(*held, rows[i], FIELDS),
        "torch": lambda i: torch_look_up_shared(*held, rows[i]),
    }
    ratios = {
        f"{method}_look_up_vs_torch_path": ("torch", "ours"),
        f"{method}_look_up_vs_apart": ("addresses by torch, then C++", "ours"),
    }
    return Piece("ns per look-up", LOOKUPS, candidates, named(ratios, dim))


def shared_step(method: str, knobs: dict[str, object], dim: int) -> Piece:
    """A step of a table whose rows share what is stored against one of full precision, Adagrad."""
    rows, gradient = looked_up(), 0.01 * torch.randn(LOOKUPS, dim)
    ours, theirs = (table_step(table_of(method, knobs, dim, "adagrad"), rows, gradient) for _ in range(2))
    candidates: dict[str, Candidate] = {
        "full precision": table_step(table_of("full_precision", {}, dim, "adagrad"), rows, gradient),
        method: ours,
        f"{method}, addresses by torch": without(("pair_rows", "pool_slots"), theirs),
    }
    ratios = {
        f"{method}_step_vs_addresses_by_torch": (f"{method}, addresses by torch", method),
        f"{method}_step_vs_full_precision": ("full precision", method),
    }
    return Piece("ns per look-up", LOOKUPS, candidates, named(ratios, dim))


def cache(policy: str) -> Piece:
    """A step's distinct rows in a cache of a twentieth of the table: found alone, and found and replaced."""
    rows = looked_up()
    steps = []
    for batch in rows:
        unique, repeats = dedupe(batch, TOTAL)
        steps.append((unique, repeats.starts.diff(append=torch.tensor([LOOKUPS]))))
    ours, theirs = (RowCache(TOTAL, TOTAL // 20, 32, policy) for _ in range(2))
    candidates: dict[str, Candidate] = {
        "place, ours": lambda i: ours.place(*steps[i]),
        "place, torch": lambda i: theirs._torch_place(*steps[i]),
        "probe, ours": lambda i: cache_probe(ours.tags, ours.ways, steps[i][0], TOTAL),
        "probe, torch": lambda i: torch_cache_probe(ours.tags, ours.ways, steps[i][0]),
    }
    # what the torch form calls to find rows is C++, too
    candidates["place, torch"] = without(("cache_probe",), candidates["place, torch"])
    ratios = {
        f"{policy}_place_vs_torch_path": ("place, torch", "place, ours"),
        f"{policy}_probe_vs_torch_path": ("probe, torch", "probe, ours"),
    }
    distinct = statistics.mean(len(unique) for unique, _ in steps)
    return Piece("ns per distinct row", distinct, candidates, ratios)


def cached(dim: int) -> Piece:
    """A step of rows of 8 bits behind a cache against one of full precision, row-wise Adagrad."""
    rows, gradient = looked_up(), 0.01 * torch.randn(LOOKUPS, dim)
    knobs: dict[str, object] = {"cache": 0.05, "placement": "lru"}
    ours, theirs = (
        table_step(table_of("cached_low_precision", knobs, dim, "rowwise_adagrad"), rows, gradient)
        for _ in range(2)
    )
    candidates: dict[str, Candidate] = {
        "full precision": table_step(table_of("full_precision", {}, dim, "rowwise_adagrad"), rows, gradient),
        "cached": ours,
        "cached, torch": without(("row_cache", "cache_probe"), theirs),
    }
    ratios = {
        "cached_step_vs_torch_path": ("cached, torch", "cached"),
        "cached_step_vs_full_precision": ("full precision", "cached"),
    }
    return Piece("ns per look-up", LOOKUPS, candidates, named(ratios, dim))


PAIRS: dict[str, object] = {"collisions": 4, "combine": "multiply"}
BLOCKS: dict[str, object] = {"ratio": 1 / 16, "block": 8}

PIECES: dict[str, Callable[[], Piece]] = {
    "chunks": lambda: chunks(16),
    "chunks_dim64": lambda: chunks(64),
    "chunk_round": chunk_round,
    "pairs": lambda: shared("quotient_remainder", PAIRS, 16),
    "pairs_dim64": lambda: shared("quotient_remainder", PAIRS, 64),
    "pool": lambda: shared("robe", BLOCKS, 16),
    "pool_dim64": lambda: shared("robe", BLOCKS, 64),
    "pairs_step": lambda: shared_step("quotient_remainder", PAIRS, 16),
    "pairs_step_dim64": lambda: shared_step("quotient_remainder", PAIRS, 64),
    "pool_step": lambda: shared_step("robe", BLOCKS, 16),
    "cache_lru": lambda: cache("lru"),
    "cache_lfu": lambda: cache("lfu"),
    "cached": lambda: cached(16),
    "cached_dim64": lambda: cached(64),
    "fiited": lambda: fiited(16),
    "fiited_dim64": lambda: fiited(64),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="*", choices=[[], *PIECES], help="pieces to run; none: all")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    loaded = library()
    if loaded is None:
        raise SystemExit("the C++ library is not available, there is nothing to measure")
    for name in arguments.pieces or PIECES:
        torch.manual_seed(0)
        piece = PIECES[name]()
        times = measured(piece, arguments.rounds)
        for candidate, taken in times.items():
            print(f"{name:14s} {candidate:32s} {taken['median']:9.2f} {piece.unit}", flush=True)
        ratios = {
            ratio: round(times[peer]["median"] / times[ours]["median"], 3)
            for ratio, (peer, ours) in piece.ratios.items()
        }
        print(name, ratios, flush=True)
        record = {
            **{"unit": piece.unit, "rows": TOTAL, "rounds": arguments.rounds, "torch": torch.__version__},
            **{"python": platform.python_version(), "processor": processor()},
            "library": Path(loaded._name).name.rsplit("-", 1)[0],
            "candidates": times,
        }
        kept(arguments.out, name, record, ratios)


def kept(path: Path, name: str, piece: dict[str, object], ratios: dict[str, float]) -> None:
    """Put one piece and its ratios into the record; the others stay."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"pieces": {}, "ratios": {}}
    report = {
        "workload": {"rows": TOTAL, "fields": FIELDS, "batch_size": BATCH},
        "threads": 1,
        "clock": "processor time of the thread; medians over rounds and batches",
        "pieces": {**found["pieces"], name: piece},
        "ratios": found["ratios"] | ratios,
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
