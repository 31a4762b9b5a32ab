"""Triton kernels on a GPU against torch, in shares of the bandwidth that copying memory reaches there.

The workload is that of cpu.py with batches of 65,536: 26 fields of Criteo Kaggle, at most 2 million rows
each, one id per field drawn log-uniformly over its rows, which are ordered by frequency.

    python kernels/bench/gpu.py                     all pieces, writes gpu.json and gpu.md beside this file
    python kernels/bench/gpu.py gather update       some of them; the others are left out of the record

Times are medians between CUDA events over bursts of all batches, candidates taking turns in random order; a
burst is played as one CUDA graph, with no launch from Python in it, but for what a graph cannot hold.
Bytes are those that have to move at least: every distinct row once, in sectors of 32 bytes, ids, and what is
written. It refuses to run without a GPU.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from aims import compared_on_gpu
from cpu import MIXED, ROWS, fields_of
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, embedding, embedding_bag

from autoembed.models import ModelConfig, build_network
from autoembed.packed import Packed, PackedTable
from autoembed.plan import PROFILES, Plan, placed, plan_bytes
from autoembed_kernels.dedupe import torch_dedupe
from autoembed_kernels.gather_packed import SEGMENT_TENSORS, PackedSegments
from autoembed_kernels.look_up_packed import ROW_TENSORS, PackedRows, torch_look_up_packed
from autoembed_kernels.pair_products import pair_places, pair_products
from autoembed_kernels.row_update import RowOptimizer, torch_row_update

DENSE, RATE, BAG = 13, 1e-3, 10
Candidate = Callable[[int], object]


@dataclass(frozen=True)
class Workload:
    """What all pieces share; small ones run in Triton's interpreter, to try the code."""

    rows: tuple[int, ...] = ROWS
    batch: int = 65_536
    batches: int = 8
    device: str = "cuda"

    @property
    def lookups(self) -> int:
        return self.batch * len(self.rows)

    def looked_up(self) -> list[Tensor]:
        """Rows over all fields (B * F,) of every batch."""
        sizes = torch.tensor(self.rows, dtype=torch.float64)
        first = torch.tensor([0, *self.rows]).cumsum(0)[:-1]
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand(self.batches, self.batch, len(self.rows), generator=generator, dtype=torch.float64)
        ids = torch.minimum(sizes**drawn, sizes - 1).long() + first
        return [one.flatten().to(self.device) for one in ids]


@dataclass(frozen=True)
class Piece:
    """Candidates; bytes that each has to move, where that is known; ratios: name -> (the peer, ours).

    `launched`: candidates that no CUDA graph can hold, because sizes depend on values.
    """

    candidates: dict[str, Candidate]
    bytes_moved: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, tuple[str, str]] = field(default_factory=dict)
    launched: tuple[str, ...] = ()


def sectors(row_bytes: float) -> float:
    """Bytes read for a row: whole sectors of 32 bytes, but less where rows are smaller than one."""
    return row_bytes if row_bytes < 32 else -(-row_bytes // 32) * 32


def copy(work: Workload) -> Piece:
    """A copy of 1 GiB: the bandwidth that all shares refer to, of the fastest of three ways."""
    size = 2**30 if work.device == "cuda" else 2**10
    source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=work.device)
    target = torch.empty_like(source)
    wide_source, wide_target = source.view(torch.float32), target.view(torch.float32)
    candidates: dict[str, Candidate] = {
        "copy": lambda i: target.copy_(source),
        "copy, CUDA graph": lambda i: target.copy_(source),
        "kernel, CUDA graph": lambda i: torch.neg(wide_source, out=wide_target),
    }
    return Piece(candidates, dict.fromkeys(candidates, 2.0 * source.numel()), launched=("copy",))


FLOATS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def random_table(precisions: dict[str, float], dim: int, work: Workload) -> PackedTable:
    """Random codes and numbers, made on the device: packing so many rows would take minutes."""
    plan = Plan(PROFILES["packed"], fields_of(precisions, dim, work.rows))
    size = plan_bytes(plan).payload
    payload = torch.randint(0, 256, (size,), dtype=torch.uint8, device=work.device)
    for _, segment, at in placed(plan):
        if segment.precision in FLOATS:
            values = torch.randn(
                segment.stored_rows * dim, device=work.device, dtype=FLOATS[segment.precision]
            )
            as_bytes = values.view(torch.uint8)
            payload[at : at + len(as_bytes)] = as_bytes
    scales, none = torch.tensor([0.05])[: plan.scale_count], torch.zeros(0)
    return PackedTable(Packed(plan, payload, scales, none, none.half(), none.byte()))


def on_device(table: PackedTable, device: str) -> tuple[Tensor, PackedSegments, PackedRows]:
    """What look-ups of a packed table take."""
    table = table.to(device)
    layout = replace(table._layout, **{name: getattr(table, f"segment_{name}") for name in SEGMENT_TENSORS})
    addresses = replace(table._addresses, **{name: getattr(table, f"row_{name}") for name in ROW_TENSORS})
    return table.words, layout, addresses


def mixed_bytes(work: Workload, rows: list[Tensor], dim: int) -> float:
    """Bytes of the distinct rows of a batch under the mixed plan."""
    size = torch.cat(
        [
            torch.cat(
                [
                    torch.full((segment.stored_rows,), sectors(segment.bits * dim / 8))
                    for segment in field.segments
                ]
            )
            for field in fields_of(MIXED, dim, work.rows)
        ]
    )
    return statistics.mean(float(size[one.cpu().unique()].sum()) for one in rows)


def gather(work: Workload, dim: int) -> Piece:
    """Look-ups out of packed tables, against float32 rows, torch's EmbeddingBag and decoding in torch."""
    from autoembed_kernels.gpu.look_up_packed import triton_look_up_packed
    from autoembed_kernels.gpu.take_rows import triton_take_rows

    rows = work.looked_up()
    distinct = statistics.mean(len(one.unique()) for one in rows)
    written = work.lookups * (8 + 4 * dim)
    weight = torch.randn(sum(work.rows), dim, device=work.device)
    offsets = torch.arange(work.lookups, device=work.device)
    candidates: dict[str, Candidate] = {
        "F.embedding float32": lambda i: embedding(rows[i], weight),
        "ours, rows of a plain table": lambda i: triton_take_rows(weight, rows[i]),
        "EmbeddingBag float32": lambda i: embedding_bag(rows[i], weight, offsets, mode="sum"),
    }
    moved = dict.fromkeys(candidates, distinct * sectors(4 * dim) + written)
    ratios = {}
    mixed = mixed_bytes(work, rows, dim)
    bits = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4, "int2": 2}
    for name, plan in {**{name: {name: 1.0} for name in bits}, "mixed": MIXED}.items():
        held = on_device(random_table(plan, dim, work), work.device)
        ours, theirs = f"ours {name}", f"decoded in torch {name}"
        candidates[ours] = lambda i, h=held: triton_look_up_packed(*h, rows[i])  # type: ignore[misc]
        candidates[theirs] = lambda i, h=held: torch_look_up_packed(*h, rows[i])  # type: ignore[misc]
        moved[ours] = written + (distinct * sectors(bits[name] * dim / 8) if name in bits else mixed)
        ratios[f"{name}_gather_vs_embedding_bag_dim{dim}"] = ("EmbeddingBag float32", ours)
        ratios[f"{name}_gather_vs_torch_decoding_dim{dim}"] = (theirs, ours)
    return Piece(candidates, moved, ratios, launched=("decoded in torch mixed",))


def pool(work: Workload, dim: int) -> Piece:
    """Sums of bags of BAG ids of every field, out of packed tables, against torch's EmbeddingBag."""
    from autoembed_kernels.gpu.pool_packed import triton_pool_packed

    fields, examples = len(work.rows), max(1, work.batch // BAG)
    # a bag's ids are those of so many examples; bags come field by field
    rows = [
        one.view(-1, fields)[: examples * BAG].t().contiguous().flatten()
        for one in Workload(work.rows, examples * BAG, work.batches, work.device).looked_up()
    ]
    bags = examples * fields
    distinct = statistics.mean(len(one.unique()) for one in rows)
    moved_beside = 8 * (len(rows[0]) + bags) + 4 * dim * bags
    offsets = torch.arange(bags + 1, device=work.device) * BAG
    weight = torch.randn(sum(work.rows), dim, device=work.device)
    means = torch.zeros(fields, dtype=torch.bool, device=work.device)
    peer = "EmbeddingBag float32"
    candidates: dict[str, Candidate] = {
        peer: lambda i: embedding_bag(rows[i], weight, offsets[:-1], mode="sum")
    }
    moved, ratios = {peer: distinct * sectors(4 * dim) + moved_beside}, {}
    for name, bits in {"fp32": 32, "int8": 8, "int4": 4}.items():
        held = on_device(random_table({name: 1.0}, dim, work), work.device)
        candidates[f"ours {name}"] = lambda i, h=held: triton_pool_packed(*h, rows[i], offsets, means)  # type: ignore[misc]
        moved[f"ours {name}"] = distinct * sectors(bits * dim / 8) + moved_beside
        ratios[f"{name}_pool_vs_embedding_bag_dim{dim}"] = (peer, f"ours {name}")
    return Piece(candidates, moved, ratios)


def update(work: Workload, dim: int) -> Piece:
    """Gradients of look-ups summed and row-wise Adagrad, in one kernel; sorting is a candidate of its own."""
    from autoembed_kernels.gpu.dedupe import padded_dedupe, triton_sum_repeats
    from autoembed_kernels.gpu.philox import seed_and_step
    from autoembed_kernels.gpu.row_update import triton_row_update

    rows = work.looked_up()
    found = [torch_dedupe(one, sum(work.rows)) for one in rows]
    distinct = statistics.mean(len(unique) for unique, _ in found)
    gradient = torch.randn(work.lookups, dim, device=work.device)
    optimizer = RowOptimizer("rowwise_adagrad", eps=1e-6)
    total = sum(work.rows)
    weight = torch.randn(total, dim, device=work.device)
    state = optimizer.state(weight)
    chance = seed_and_step(1, 1, torch.device(work.device))
    steps = torch.full((total,), 0.01, dtype=torch.float16, device=work.device)

    def ours(stored: Tensor, draws: Tensor | None) -> Candidate:
        held = steps if stored.dtype == torch.int8 else None

        def call(i: int) -> None:
            unique, repeats = found[i]
            spans = (repeats.order, repeats.starts)
            triton_row_update(
                optimizer, stored, state, unique, gradient, RATE, spans=spans, steps=held, chance=draws
            )

        return call

    def plain(i: int) -> None:
        unique, repeats = found[i]
        summed = embedding_bag(repeats.order, gradient, repeats.starts, mode="sum")
        torch_row_update(optimizer, weight, state, unique, summed, RATE)

    def found_too(i: int) -> None:
        unique, *spans = padded_dedupe(rows[i], total)
        order, starts = spans
        triton_row_update(optimizer, weight, state, unique, gradient, RATE, spans=(order, starts))

    half = weight.half()
    codes = torch.randint(-127, 128, (total, dim), device=work.device, dtype=torch.int8)
    candidates: dict[str, Candidate] = {
        "distinct rows found": lambda i: padded_dedupe(rows[i], total),
        "sort of 32-bit rows": lambda i: rows[i].int().sort(stable=True),
        "sums of repeats": lambda i: triton_sum_repeats(gradient, found[i][1].order, found[i][1].starts),
        "torch fp32": plain,
        "ours fp32": ours(weight, None),
        "ours fp32, rows found too": found_too,
        "ours fp16 nearest": ours(half, None),
        "ours fp16 by chance": ours(half, chance),
        "ours int8 nearest": ours(codes, None),
        "ours int8 by chance": ours(codes, chance),
    }
    # gradients and order read once; rows and their sums read and written
    read = work.lookups * (4 * dim + 8)
    sizes = {"fp32": 4 * dim, "fp16 nearest": 2 * dim, "fp16 by chance": 2 * dim}
    sizes |= {"int8 nearest": dim + 2, "int8 by chance": dim + 2}
    moved = {f"ours {name}": read + 2 * distinct * (sectors(size) + 4) for name, size in sizes.items()}
    moved["sums of repeats"] = read + distinct * 4 * dim
    ratios = {
        f"fp32_update_vs_torch_dim{dim}": ("torch fp32", "ours fp32"),
        f"fp32_update_and_sort_vs_torch_dim{dim}": ("torch fp32", "ours fp32, rows found too"),
        f"fp16_by_chance_vs_nearest_dim{dim}": ("ours fp16 nearest", "ours fp16 by chance"),
        f"int8_by_chance_vs_nearest_dim{dim}": ("ours int8 nearest", "ours int8 by chance"),
        f"int8_by_chance_vs_fp32_dim{dim}": ("ours fp32", "ours int8 by chance"),
    }
    return Piece(candidates, moved, ratios)


def interaction(work: Workload, dim: int) -> Piece:
    """Products of all pairs of 27 vectors, forward and backward."""
    count = len(work.rows) + 1
    vectors = torch.randn(work.batch, count, dim, device=work.device, requires_grad=True)
    upper, mirrored = (places.to(work.device) for places in pair_places(count))
    gradient = torch.randn(work.batch, len(upper), device=work.device)

    def bmm(i: int) -> None:
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        products.index_select(1, upper).backward(gradient)

    def ours(i: int) -> None:
        pair_products(vectors, upper, mirrored).backward(gradient)

    size = 4 * work.batch * (3 * count * dim + 2 * len(upper))
    peer = "bmm and index_select"
    return Piece({peer: bmm, "ours": ours}, {"ours": size}, {f"interaction_vs_bmm_dim{dim}": (peer, "ours")})


def step(work: Workload, dim: int, precision: str) -> Piece:
    """The whole step of DLRM: ours launched one by one or played as a CUDA graph; torch's EmbeddingBag.

    precision: of products of matrices, for all candidates: "highest" is float32, "high" is TF32.
    """
    torch.set_float32_matmul_precision(precision)
    from autoembed_kernels.gpu.dedupe import padded_dedupe
    from autoembed_kernels.gpu.row_update import triton_row_update
    from autoembed_kernels.gpu.take_rows import triton_take_rows

    rows = work.looked_up()
    fields, total = len(work.rows), sum(work.rows)
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(work.batch, generator=generator).lt(0.25).float().to(work.device)
    dense = torch.randn(work.batch, DENSE, generator=generator).to(work.device)
    on_gpu = work.device == "cuda"

    def network() -> tuple[nn.Module, torch.optim.Optimizer]:
        widths = {"bottom": (512, 256, 64), "hidden": (512, 256)}
        model = ModelConfig(name="dlrm", dim=dim, concat_embeddings=False, **widths)
        built = build_network(model, fields, DENSE, torch.Generator().manual_seed(0)).to(work.device)
        return built, torch.optim.Adam(built.parameters(), lr=RATE, fused=True, capturable=on_gpu)

    over, adam = network()
    optimizer = RowOptimizer("rowwise_adagrad", eps=1e-6)
    weight = torch.randn(total, dim, device=work.device).mul_(0.01)
    state = optimizer.state(weight)
    held = rows[0].clone()

    def train() -> None:
        adam.zero_grad(set_to_none=True)
        vectors = triton_take_rows(weight, held).requires_grad_()
        logits = over(dense, vectors.view(work.batch, fields, dim))
        binary_cross_entropy_with_logits(logits, labels).backward()  # type: ignore[no-untyped-call]
        adam.step()
        unique, order, starts = padded_dedupe(held, total)
        assert vectors.grad is not None
        triton_row_update(optimizer, weight, state, unique, vectors.grad, RATE, spans=(order, starts))

    def launched(i: int) -> None:
        held.copy_(rows[i])
        train()

    # in the interpreter there are no graphs, and the two are one
    candidates: dict[str, Candidate] = {"ours, launched one by one": launched, "ours, CUDA graph": launched}
    bags = nn.EmbeddingBag(total, dim, mode="sum", sparse=True, device=work.device)
    other, other_adam = network()
    sparse = torch.optim.Adagrad(bags.parameters(), lr=RATE)
    offsets = torch.arange(work.lookups, device=work.device)

    def torch_step(i: int) -> None:
        other_adam.zero_grad(set_to_none=True)
        sparse.zero_grad(set_to_none=True)
        logits = other(dense, bags(rows[i], offsets).view(work.batch, fields, dim))
        binary_cross_entropy_with_logits(logits, labels).backward()  # type: ignore[no-untyped-call]
        other_adam.step()
        sparse.step()

    candidates["EmbeddingBag and sparse Adagrad"] = torch_step
    peers = {"torch": "EmbeddingBag and sparse Adagrad", "launches": "ours, launched one by one"}
    best = "ours, CUDA graph"
    suffix = f"dim{dim}" + ("_tf32" if precision == "high" else "")
    ratios = {f"step_vs_{peer}_{suffix}": (name, best) for peer, name in peers.items()}
    return Piece(candidates, {}, ratios, launched=tuple(name for name in candidates if name != best))


def captured(work: Callable[[], None]) -> torch.cuda.CUDAGraph:
    """A CUDA graph of a call, after three warm-up calls on a stream of their own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


PIECES: dict[str, Callable[[Workload], Piece]] = {
    "copy": copy,
    "gather": lambda work: gather(work, 16),
    "gather_dim64": lambda work: gather(work, 64),
    "pool": lambda work: pool(work, 16),
    "pool_dim64": lambda work: pool(work, 64),
    "update": lambda work: update(work, 16),
    "update_dim64": lambda work: update(work, 64),
    "interaction": lambda work: interaction(work, 16),
    "interaction_dim64": lambda work: interaction(work, 64),
    "step": lambda work: step(work, 16, "highest"),
    "step_tf32": lambda work: step(work, 16, "high"),
}


def bursts(piece: Piece, batches: int) -> dict[str, Callable[[], None]]:
    """Every candidate on all batches, as one CUDA graph where it may be."""

    def burst(call: Candidate) -> Callable[[], None]:
        def every() -> None:
            for batch in range(batches):
                call(batch)

        return every

    made = {name: burst(call) for name, call in piece.candidates.items()}
    return {name: call if name in piece.launched else captured(call).replay for name, call in made.items()}


def measured(piece: Piece, batches: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of a call, a mean of every burst; the first three rounds only warm up."""
    calls = bursts(piece, batches)
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for counted in range(rounds + 3):
        for name in order.sample(list(times), len(times)):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            calls[name]()
            stop.record()
            torch.cuda.synchronize()
            if counted >= 3:
                times[name].append(1000 * start.elapsed_time(stop) / batches)
    return times


def busy_share(piece: Piece, name: str, batches: int) -> float:
    """The share of a candidate's time in which the GPU runs kernels, over three bursts."""
    from torch.profiler import ProfilerActivity, profile

    only = replace(piece, candidates={name: piece.candidates[name]})
    call = bursts(only, batches)[name]
    call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(3):
            call()
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in seen.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:  # kernels may overlap
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return busy / (reached - spans[0][0])


def run(names: list[str], rounds: int) -> dict[str, Any]:
    """The record of these pieces."""
    work = Workload()
    pieces: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    bandwidth = 0.0
    for name in ["copy", *(one for one in names if one != "copy")]:
        piece = PIECES[name](work)
        entries: dict[str, dict[str, float]] = {}
        for candidate, taken in measured(piece, work.batches, rounds).items():
            low, median, high = statistics.quantiles(taken, n=4)
            entry = {"median_us": round(median, 2), "p25_us": round(low, 2), "p75_us": round(high, 2)}
            if candidate in piece.bytes_moved:
                rate = piece.bytes_moved[candidate] / median / 1000
                bandwidth = max(bandwidth, rate) if name == "copy" else bandwidth
                entry |= {"gb_per_s": round(rate, 1), "share_of_copy": round(rate / bandwidth, 3)}
            if name.startswith("step"):
                entry["busy_share"] = round(busy_share(piece, candidate, work.batches), 3)
            entries[candidate] = entry
            print(f"{name:18s} {candidate:34s} {entry}", flush=True)
        for ratio, (peer, ours) in piece.ratios.items():
            ratios[ratio] = round(entries[peer]["median_us"] / entries[ours]["median_us"], 3)
            print(f"{name:18s} {ratio:44s} {ratios[ratio]:.2f}x", flush=True)
        pieces[name] = entries
        del piece
        torch.cuda.empty_cache()
    return {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": version("triton"),
        "workload": {"rows": sum(work.rows), "fields": len(work.rows), "batch": work.batch},
        "rounds": rounds,
        "copy_gb_per_s": round(bandwidth, 1),
        "pieces": pieces,
        "ratios": ratios,
        "aims": compared_on_gpu(pieces, ratios),
    }


def as_markdown(record: dict[str, Any]) -> str:
    """The record as tables."""
    versions = f"torch {record['torch']}, CUDA {record['cuda']}, Triton {record['triton']}"
    lines = [f"# Kernels on {record['device']}", "", f"{versions}; copy {record['copy_gb_per_s']} GB/s.", ""]
    if "note" in record:
        lines += [*record["note"], ""]
    for name, entries in record["pieces"].items():
        lines += [f"## {name}", "", "| candidate | median, us | p25 | p75 | GB/s | share of copy | busy |"]
        lines.append("|---|---|---|---|---|---|---|")
        keys = ("median_us", "p25_us", "p75_us", "gb_per_s", "share_of_copy", "busy_share")
        for candidate, entry in entries.items():
            lines.append(f"| {candidate} | " + " | ".join(str(entry.get(key, "")) for key in keys) + " |")
        lines.append("")
    lines += ["## Ratios, higher is better for ours", ""]
    lines += [f"- {name}: {value}" for name, value in record["ratios"].items()]
    missed = {name: held for name, held in record["aims"].items() if "missed_by" in held}
    lines += ["", f"## Missed, {len(missed)} of {len(record['aims'])} aims", ""]
    for name, held in missed.items():
        reached = f"{held['reached']} of at least {held['at_least']}"
        lines.append(f"- {name}: {reached}, missed by a factor of {held['missed_by']}: {held['limit']}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="*", choices=[[], *PIECES], help="pieces to run; none: all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA GPU here, and nothing else is measured: run this where one is")
    if find_spec("triton") is None:
        raise SystemExit("Triton is not installed: pip install 'autoembed[gpu]'")
    record = run(arguments.pieces or list(PIECES), arguments.rounds)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(as_markdown(record), encoding="utf-8")


if __name__ == "__main__":
    main()
