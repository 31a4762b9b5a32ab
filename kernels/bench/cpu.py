"""CPU kernels against their peers: taking turns in one process, one thread, processor time of that thread.

The workload has the 26 fields of Criteo Kaggle, capped at 2 million rows each, batch 2048, one id per field
from Zipf's law, whose exponent grows from 1.05 in the first field to 1.20 in the last; rows are ordered by
frequency. 12 batches rotate; every round calls all candidates on all batches in a new random order. Processor
time leaves out what neighbours take, but for caches and memory: read the ratios inside one piece.
Single look-ups have ids of 4 bytes, FBGEMM's and ours.

Our tables ask Linux for large pages; the benchmark asks in the name of all others. FBGEMM's are measured in
small pages, too, as they come. `threads` and `threads_work` are two threads against one, by the wall's clock
and by the processor time of both, in the mean: twice the latter is the most that two cores could bring.

    python kernels/bench/cpu.py                     all pieces, writes kernels/bench/cpu.json
    python kernels/bench/cpu.py gather update       some of them; the record keeps the others as they were

The training side, interaction and whole steps, is measured by `cpu_training.py`, into the same record.
FBGEMM takes part where fbgemm-gpu-cpu 1.8.0 is installed, the one release that loads beside torch 2.13.
"""

import argparse
import ctypes
import importlib.metadata
import json
import os
import platform
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from aims import compared
from torch import Tensor
from torch.nn.functional import embedding

from autoembed.packed import PackedTable, SegmentRows, pack
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed.segment_index import pack_codes
from autoembed_kernels.dedupe import dedupe, repeat, torch_dedupe
from autoembed_kernels.large_pages import in_large_pages
from autoembed_kernels.look_up_packed import torch_look_up_packed
from autoembed_kernels.look_up_parts import torch_look_up_parts
from autoembed_kernels.native.build import compiler
from autoembed_kernels.native.loader import library
from autoembed_kernels.pool_packed import pool_packed
from autoembed_kernels.row_update import RowOptimizer, row_update, torch_row_update

# fmt: off
CRITEO_KAGGLE = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10,
    5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)
# fmt: on
ROWS = tuple(min(rows, 2_000_000) for rows in CRITEO_KAGGLE)
FIRST = torch.tensor([0, *ROWS]).cumsum(0)[:-1]
FIELDS, TOTAL = len(ROWS), sum(ROWS)
BATCH, BATCHES, DENSE = 2048, 12, 13
LOOKUPS, BAG = BATCH * FIELDS, 10
EXPONENTS = (1.05, 1.20)  # of the first and the last field
IDS = f"Zipf, exponents {EXPONENTS[0]} to {EXPONENTS[1]}, ordered by frequency"
# precisions of the mixed plan and the share of a field's rows, the most frequent first, that ends each
MIXED = {"fp32": 0.001, "fp16": 0.01, "int8": 0.05, "int4": 0.2, "int3": 0.5, "int2": 1.0}

# FBGEMM's tables in large pages or not, and how their candidates' names end
PAGES = {True: "", False: ", small pages"}

Candidate = Callable[[int], object]


@dataclass(frozen=True)
class Piece:
    """Candidates of one piece and its ratios: name -> (the peer, ours); higher is better for ours."""

    unit: str
    per_call: float
    candidates: dict[str, Candidate]
    ratios: dict[str, tuple[str, str]]
    clock: Callable[[], int] = time.thread_time_ns


def measured(piece: Piece, rounds: int) -> dict[str, dict[str, float]]:
    """Median and quartiles of every candidate, in the piece's unit; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in piece.candidates}
    order = random.Random(0)
    for counted in range(rounds + 1):
        for batch in range(BATCHES):
            for name in order.sample(list(times), len(times)):
                started = piece.clock()
                piece.candidates[name](batch)
                taken = (piece.clock() - started) / piece.per_call
                if counted:
                    times[name].append(taken)
    found = {}
    for name, taken_times in times.items():
        low, median, high = statistics.quantiles(taken_times, n=4)
        found[name] = {"median": round(median, 2), "p25": round(low, 2), "p75": round(high, 2)}
        found[name]["mean"] = round(statistics.mean(taken_times), 2)
    return found


def batches() -> list[Tensor]:
    """Ids (B, F) of every batch, by the inverse of the distribution with density r^-a on [1, rows + 1]."""
    drawn = np.random.default_rng(0).random((BATCHES, BATCH, FIELDS))
    sizes, less = np.array(ROWS), 1 - np.linspace(*EXPONENTS, FIELDS)
    ranks = (1 + drawn * ((sizes + 1.0) ** less - 1)) ** (1 / less)
    return [torch.from_numpy(np.minimum(rank.astype(np.int64), sizes) - 1) for rank in ranks]


def fields_of(precisions: dict[str, float], dim: int, rows_of_fields: Sequence[int]) -> tuple[FieldPlan, ...]:
    """Fields of which each is cut into segments of these precisions."""
    fields = []
    for number, rows in enumerate(rows_of_fields):
        stops = [max(1, round(share * rows)) if share < 1 else rows for share in precisions.values()]
        starts = [0, *stops[:-1]]
        segments = tuple(
            own(start, stop, dim, precision, scale=0 if precision.startswith("int") else None)
            for precision, start, stop in zip(precisions, starts, stops, strict=True)
            if start < stop
        )
        fields.append(FieldPlan(f"C{number}", rows, dim, segments))
    return tuple(fields)


def packed_table(precisions: dict[str, float], dim: int, rows_of_fields: Sequence[int] = ROWS) -> PackedTable:
    """Random rows of all fields, each cut into segments of these precisions."""
    fields = fields_of(precisions, dim, rows_of_fields)
    generator = torch.Generator().manual_seed(0)

    def rows_of(_: int, segment: object) -> SegmentRows:
        return SegmentRows(torch.randn(segment.stored_rows, dim, generator=generator))  # type: ignore[attr-defined]

    return PackedTable(pack(Plan(PROFILES["packed"], fields), rows_of, torch.tensor([0.05])))


def gather(dim: int) -> Piece:
    """One id per field out of packed tables, against float32 rows and FBGEMM's integer tables."""
    rows = [(ids + FIRST).flatten().int() for ids in batches()]  # FBGEMM's have 4 bytes, too
    plans = {f"int{bits}": {f"int{bits}": 1.0} for bits in (8, 4, 2)} | {"mixed": MIXED}
    tables = {name: packed_table(precisions, dim) for name, precisions in plans.items()}
    # ours reads rows that nobody else reads, so that it finds none of them in the cache but its own
    words = {name: in_large_pages(table.words.clone()) for name, table in tables.items()}
    weight = in_large_pages(torch.randn(TOTAL, dim))
    candidates: dict[str, Candidate] = {"F.embedding float32": lambda i: embedding(rows[i], weight)}
    for name, table in tables.items():
        candidates[f"ours {name}"] = lambda i, t=table: t.stored(rows[i], FIELDS)  # type: ignore[misc]
        held = (words[name], table._layout, table._addresses)
        candidates[f"torch {name}"] = lambda i, h=held: torch_look_up_packed(*h, rows[i])  # type: ignore[misc]
    suffix = "" if dim == 16 else f"_dim{dim}"
    ratios = {f"{name}_gather_vs_torch_path{suffix}": (f"torch {name}", f"ours {name}") for name in tables}
    ratios |= {
        f"{name}_gather_vs_float32_embedding{suffix}": ("F.embedding float32", f"ours {name}")
        for name in tables
    }
    for bits in (8, 4):
        candidates[f"limit int{bits}"] = read_limit(words[f"int{bits}"], rows, dim * bits // 8)
        ratios[f"int{bits}_gather_vs_random_read_limit{suffix}"] = (f"limit int{bits}", f"ours int{bits}")
    if fbgemm():
        for bits in (8, 4, 2):
            for large, pages in PAGES.items():
                peer = f"fbgemm int{bits}{pages}"
                candidates[peer] = fbgemm_tables(f"int{bits}", dim, *by_field(batches()), large)
                ratios[f"int{bits}_gather_vs_fbgemm{as_name(pages)}{suffix}"] = (peer, f"ours int{bits}")
        for pages in PAGES.values():
            name = f"mixed_gather_vs_fbgemm_int4{as_name(pages)}{suffix}"
            ratios[name] = (f"fbgemm int4{pages}", "ours mixed")
    ratios[f"mixed_gather_vs_int8{suffix}"] = ("ours int8", "ours mixed")
    return Piece("ns per look-up", LOOKUPS, candidates, ratios)


def coded() -> Piece:
    """The same look-ups where all but the most frequent 2 % of a field's rows read a codebook of 256."""
    table = coded_table(16)
    held = (table.words, table._layout, table._addresses)
    return beside_plain_rows("codebook", "codebooks", table, "int8", lambda r: torch_look_up_packed(*held, r))


def beside_plain_rows(
    name: str, label: str, table: PackedTable, plain: str, by_torch: Callable[[Tensor], Tensor]
) -> Piece:
    """Look-ups of a table of dimension 16 beside rows of `plain` codes and of float32, and by torch."""
    rows = [(ids + FIRST).flatten() for ids in batches()]
    codes, weight = packed_table({plain: 1.0}, 16), in_large_pages(torch.randn(TOTAL, 16))
    candidates: dict[str, Candidate] = {
        "F.embedding float32": lambda i: embedding(rows[i], weight),
        f"ours {plain}": lambda i: codes.stored(rows[i], FIELDS),
        f"ours {label}": lambda i: table.stored(rows[i], FIELDS),
        f"torch {label}": lambda i: by_torch(rows[i]),
    }
    peers = {
        plain: f"ours {plain}",
        "float32_embedding": "F.embedding float32",
        "torch_path": f"torch {label}",
    }
    ratios = {f"{name}_gather_vs_{peer}": (of, f"ours {label}") for peer, of in peers.items()}
    return Piece("ns per look-up", LOOKUPS, candidates, ratios)


def coded_table(dim: int) -> PackedTable:
    """The first 2 % of a field's rows as int8 rows of their own, the others by codes of 8 bits."""
    fields = []
    for number, rows in enumerate(ROWS):
        head = max(1, rows // 50)
        segments = [own(0, min(head, rows), dim, "int8", scale=0)]
        if rows > head:
            stored = min(256, rows - head)
            segments.append(Segment(head, rows, Sharing.CODEBOOK, stored, dim, "int8", scale=0))
        fields.append(FieldPlan(f"C{number}", rows, dim, tuple(segments)))
    generator = torch.Generator().manual_seed(0)

    def rows_of(_: int, segment: Segment) -> SegmentRows:
        values = torch.randn(segment.stored_rows, dim, generator=generator)
        if segment.sharing is not Sharing.CODEBOOK:
            return SegmentRows(values)
        codes = torch.randint(0, segment.stored_rows, (segment.rows,), generator=generator)
        return SegmentRows(values, index=pack_codes(segment, codes))

    return PackedTable(pack(Plan(PROFILES["packed"], tuple(fields)), rows_of, torch.tensor([0.05])))


def parted() -> Piece:
    """The same look-ups of rows in parts: columns of falling bits, each part in a segment of its own."""
    table = parted_table()
    held = (table.words, table._layout, table._addresses, table.tails.count, table.tails.most)
    return beside_plain_rows("parts", "parts", table, "int4", lambda r: torch_look_up_parts(*held, r))


def parted_table() -> PackedTable:
    """Rows of 16 dimensions: the first 1/64 of a field's in three parts, all others in two."""
    in_front = (
        ((4, "int6"), (4, "int4"), (8, "int2")),
        ((8, "int4"), (8, "int2")),
        ((4, "int2"), (12, "int1")),
    )
    fields = []
    for number, rows in enumerate(ROWS):
        stops = [max(1, rows // 64), max(2, rows // 8), rows]
        segments = []
        for start, stop, parts in zip([0, *stops[:-1]], stops, in_front, strict=True):
            if start >= stop or stop > rows:
                continue
            (dim, precision), *behind = parts
            segments.append(own(start, stop, dim, precision, scale=0))
            segments += [
                Segment(stop, stop, Sharing.TAIL, stop - start, dim, precision, scale=0)
                for dim, precision in behind
            ]
        fields.append(FieldPlan(f"C{number}", rows, 16, tuple(segments)))
    generator = torch.Generator().manual_seed(0)

    def rows_of(_: int, segment: Segment) -> SegmentRows:
        return SegmentRows(torch.randn(segment.stored_rows, segment.dim, generator=generator))

    return PackedTable(pack(Plan(PROFILES["packed"], tuple(fields)), rows_of, torch.tensor([0.05])))


def as_name(pages: str) -> str:
    return pages.replace(", ", "_").replace(" ", "_")


def read_limit(words: Tensor, rows: Sequence[Tensor], row_bytes: int) -> Candidate:
    """Reads of the same rows and nothing else, read_limit.cpp, fetched 32 rows ahead."""
    path, _ = compiler()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "read_limit.so"
        source = Path(__file__).with_suffix("").with_name("read_limit.cpp")
        subprocess.run([path, "-O3", "-march=native", "-shared", "-fPIC", source, "-o", made], check=True)
        read_rows = ctypes.CDLL(str(made)).read_rows
    read_rows.argtypes = (ctypes.c_void_p, ctypes.c_void_p, *(ctypes.c_int64,) * 3)
    read_rows.restype = ctypes.c_int64
    places = [batch.long() * row_bytes for batch in rows]
    return lambda i: read_rows(words.data_ptr(), places[i].data_ptr(), len(places[i]), row_bytes, 32)


def pooled(dim: int) -> Piece:
    """Sums of bags of ten ids: integer tables and float32 against FBGEMM's, and EmbeddingBag."""
    ids = bags()
    rows = [(batch + FIRST.unsqueeze(1)).flatten() for batch in ids]
    offsets = torch.arange(LOOKUPS + 1) * BAG
    sums = torch.zeros(FIELDS, dtype=torch.bool)
    candidates: dict[str, Candidate] = {}
    ratios = {}
    suffix = "" if dim == 16 else f"_dim{dim}"
    for name in ("int8", "int4", "fp32"):
        table = packed_table({name: 1.0}, dim)
        held = (table.words, table._layout, table._addresses)
        candidates[f"ours {name}"] = lambda i, h=held: pool_packed(*h, rows[i], offsets, sums)  # type: ignore[misc]
        for large, pages in PAGES.items() if fbgemm() else ():
            flat, peer = [batch.flatten() for batch in ids], f"fbgemm {name}{pages}"
            candidates[peer] = fbgemm_tables(name, dim, flat, offsets, large)
            ratios[f"pooled_{name}_vs_fbgemm{as_name(pages)}{suffix}"] = (peer, f"ours {name}")
        if name == "int8":
            candidates["limit int8"] = read_limit(in_large_pages(table.words.clone()), rows, dim)
            ratios[f"pooled_int8_vs_random_read_limit{suffix}"] = ("limit int8", "ours int8")
    return Piece("ns per look-up", LOOKUPS * BAG, candidates, ratios)


def bags() -> list[Tensor]:
    """Ids (F, B * 10) of every batch, from the law of `batches`."""
    drawn = np.random.default_rng(1).random((BATCHES, FIELDS, BATCH * BAG))
    sizes, less = np.array(ROWS)[:, None], 1 - np.linspace(*EXPONENTS, FIELDS)[:, None]
    ranks = (1 + drawn * ((sizes + 1.0) ** less - 1)) ** (1 / less)
    return [torch.from_numpy(np.minimum(rank.astype(np.int64), sizes) - 1) for rank in ranks]


def with_threads(clock: Callable[[], int]) -> Piece:
    """Look-ups and bags in int8 with one thread and with two, by the wall's clock or by the work of both."""
    table = packed_table({"int8": 1.0}, 16)
    held = (table.words, table._layout, table._addresses)
    rows = [(ids + FIRST).flatten() for ids in batches()]
    bag_rows = [(batch + FIRST.unsqueeze(1)).flatten() for batch in bags()]
    offsets, sums = torch.arange(LOOKUPS + 1) * BAG, torch.zeros(FIELDS, dtype=torch.bool)
    candidates: dict[str, Candidate] = {}
    for workers in (1, 2):

        def looked_up(i: int, workers: int = workers) -> None:
            torch.set_num_threads(workers)
            table.stored(rows[i], FIELDS)

        def summed(i: int, workers: int = workers) -> None:
            torch.set_num_threads(workers)
            pool_packed(*held, bag_rows[i], offsets, sums)

        candidates[f"look-ups, {workers}"], candidates[f"bags, {workers}"] = looked_up, summed
    suffix = "_work" if clock is time.process_time_ns else ""
    names = {"gather": "look-ups", "pooled": "bags"}
    ratios = {f"{name}_2_threads_vs_1{suffix}": (f"{kind}, 1", f"{kind}, 2") for name, kind in names.items()}
    return Piece("us per batch", 1e3, candidates, ratios, clock)


def fbgemm() -> bool:
    try:
        return importlib.metadata.version("fbgemm-gpu-cpu") == "1.8.0"
    except importlib.metadata.PackageNotFoundError:
        return False


def by_field(ids: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """FBGEMM's order: field by field; and the offsets of bags of one id."""
    return [batch.T.contiguous().flatten() for batch in ids], torch.arange(LOOKUPS + 1)


def fbgemm_tables(
    precision: str, dim: int, indices: Sequence[Tensor], offsets: Tensor, large: bool
) -> Candidate:
    """FBGEMM inference tables; indices (N,) of every batch, field by field, and the offsets of bags.

    large: in large pages, which ours ask for, and for which FBGEMM has no setting.
    """
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (
        IntNBitTableBatchedEmbeddingBagsCodegen,
    )

    kinds = {
        **{"int8": SparseType.INT8, "int4": SparseType.INT4, "int2": SparseType.INT2},
        "fp32": SparseType.FP32,
    }
    tables = IntNBitTableBatchedEmbeddingBagsCodegen(
        [("", rows, dim, kinds[precision], EmbeddingLocation.HOST) for rows in ROWS],
        device="cpu",
        output_dtype=SparseType.FP32,
    )
    tables.fill_random_weights()
    if large:
        for held in (tables.weights_host, *tables.buffers()):
            in_large_pages(held)
    flat, ends = [one.int() for one in indices], offsets.int()
    return lambda i: tables(flat[i], ends)


def update(dim: int) -> Piece:
    """Backward through the look-ups and the optimizer step; the forward pass is not timed with it."""
    ids = batches()
    rows = [(batch + FIRST).flatten() for batch in ids]
    gradient = torch.randn(LOOKUPS, dim)
    candidates: dict[str, Candidate] = {}
    for name in ("adam", "rowwise_adagrad"):
        optimizer, weight = RowOptimizer(name), torch.randn(TOTAL, dim)
        state = optimizer.state(weight)

        def ours(i: int, o=optimizer, w=weight, s=state) -> None:  # type: ignore[no-untyped-def]
            unique, repeats = dedupe(rows[i], TOTAL)
            values = w[:1].expand(len(unique), dim).requires_grad_()  # only the gradient's shape matters
            repeat(values, repeats).backward(gradient)
            row_update(o, w, s, unique, values.grad, 1e-3)

        def plain(i: int, o=optimizer, w=weight, s=state) -> None:  # type: ignore[no-untyped-def]
            unique, repeats = torch_dedupe(rows[i], TOTAL)
            summed = torch.nn.functional.embedding_bag(repeats.order, gradient, repeats.starts, mode="sum")
            torch_row_update(o, w, s, unique, summed, 1e-3)

        candidates[f"ours {name}"], candidates[f"torch {name}"] = ours, plain
    sparse = torch.randn(TOTAL, dim, requires_grad=True)
    theirs = torch.optim.SparseAdam([sparse], lr=1e-3)

    def sparse_adam(i: int) -> None:
        sparse.grad = torch.sparse_coo_tensor(
            rows[i].unsqueeze(0), gradient, (TOTAL, dim), check_invariants=False
        )
        theirs.step()

    candidates["SparseAdam"] = sparse_adam
    ratios = {
        "adam_update_vs_torch_path": ("torch adam", "ours adam"),
        "adam_update_vs_sparse_adam": ("SparseAdam", "ours adam"),
        "rowwise_adagrad_update_vs_torch_path": ("torch rowwise_adagrad", "ours rowwise_adagrad"),
    }
    return Piece("ns per look-up", LOOKUPS, candidates, ratios)


PIECES: dict[str, Callable[[], Piece]] = {
    "gather": lambda: gather(16),
    "gather_dim64": lambda: gather(64),
    "codebook": coded,
    "parts": parted,
    "pooled": lambda: pooled(16),
    "pooled_dim64": lambda: pooled(64),
    "threads": lambda: with_threads(time.perf_counter_ns),
    "threads_work": lambda: with_threads(time.process_time_ns),
    "update": lambda: update(16),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="*", choices=[[], *PIECES], help="pieces to run; none: all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "cpu.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    loaded = library()
    if loaded is None:
        raise SystemExit("the C++ library is not available, there is nothing to measure")
    for name in arguments.pieces or PIECES:
        piece = PIECES[name]()
        times = measured(piece, arguments.rounds)
        torch.set_num_threads(1)
        for candidate, taken in times.items():
            print(f"{name:18s} {candidate:32s} {taken['median']:9.2f} {piece.unit}", flush=True)
        # what other threads took arrives a clock tick later, in another call than it was spent in
        said = "mean" if piece.clock is time.process_time_ns else "median"
        ratios = {}
        for ratio, (peer, ours) in piece.ratios.items():
            ratios[ratio] = round(times[peer][said] / times[ours][said], 3)
            print(f"{name:18s} {ratio:42s} {ratios[ratio]:.2f}x", flush=True)
        measured_with = {
            "ids": IDS,
            "rounds": arguments.rounds,
            "torch": torch.__version__,
            "fbgemm_gpu_cpu": "1.8.0" if fbgemm() else None,
            "python": platform.python_version(),
            "library": Path(loaded._name).name.rsplit("-", 1)[0],
            "processor": processor(),
        }
        kept(arguments.out, name, {"unit": piece.unit, **measured_with, "candidates": times}, ratios)


def keep_memory() -> None:
    """glibc keeps freed memory, as in the workers of a search, so that no candidate pays for fresh pages."""
    libc = ctypes.CDLL("libc.so.6")
    mmap_threshold, trim_threshold, top_pad = -3, -1, -2
    for option, size in ((mmap_threshold, 2**25), (trim_threshold, 2**28), (top_pad, 2**24)):
        libc.mallopt(option, size)


def kept(path: Path, name: str, piece: dict[str, object], ratios: dict[str, float]) -> None:
    """Put one piece and its ratios into the record; the others stay, those of cpu_training.py, too.

    `aims` is of all of them: what was to be reached, by how much it is missed and what limits it (aims.py).
    """
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"pieces": {}, "ratios": {}}
    pieces, ratios = {**found["pieces"], name: piece}, found["ratios"] | ratios
    report = {
        "workload": {"rows": TOTAL, "tables": FIELDS, "batch_size": BATCH},
        "threads": 1,
        "clock": "processor time of the thread; medians over rounds and batches",
        "pieces": pieces,
        "ratios": ratios,
        "aims": compared(pieces, ratios),
    }
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
