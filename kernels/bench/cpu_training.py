"""The training side on a CPU against its peers: updates of rows, products of pairs, whole steps of DLRM.

Fields, batches and clock are those of `cpu.py`, but no field has more than half a million rows, so that the
tables of all competitors fit one process at dimension 64. Candidates take turns on the same batch; a ratio is
the median over these turns of the peer's time over ours, higher is better for ours. Freed memory is kept by
the process, for all candidates, as `autoembed search` has it; all tables lie in large pages, as ours ask for.

    update        gradients of look-ups to updated rows by row-wise Adagrad, with the rounding, without the
                  forward pass; the cost of stochastic rounding is its time over nearest rounding's. "One
                  pass each" finds distinct rows, sums and updates one after the other
    interaction   forward and backward
    mixture       fake quantization of a batch's distinct rows by MPE's mixture, against our torch path
    bits          codes of 3 bits to bytes and back, against our torch path
    threads       the update with 1, 2 and 4 threads: by the wall's clock, which neighbours stretch, and the
                  processor time of all threads together, which would be the same without any overhead
    train_step    examples to updated parameters: ours and FBGEMM with row-wise Adagrad, ours and SparseAdam
                  with Adam. The peers multiply pairs by bmm and have torch's layers, as their users do;
                  `_same_network` are the ratios where they have our interaction and layers, too. The bound
                  is the products of matrices alone, the dense optimizer, and one copy of the looked-up rows
                  forward and back; elementwise work and the interaction come on top of it. A step's parts:
                  data (a batch of shuffled examples), embedding, interaction (products of pairs, timed
                  where they are called), MLP (the rest of the network) and the dense optimizer.

    python kernels/bench/cpu_training.py [pieces] [--rounds N]

writes its pieces and ratios into kernels/bench/cpu.json and leaves the others as they are.
"""

import argparse
import ctypes
import json
import platform
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from cpu import BATCH, BATCHES, DENSE, FIELDS, ROWS, batches, fbgemm, kept, processor
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.data.batch import Batch
from autoembed.data.rows import Rows
from autoembed.methods.base import Method, TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.low_precision import LowPrecision
from autoembed.models import ModelConfig, build_network
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.bitpack import pack_bits, torch_pack_bits, torch_unpack_bits, unpack_bits
from autoembed_kernels.dedupe import dedupe, sum_repeats, take_rows
from autoembed_kernels.large_pages import in_large_pages
from autoembed_kernels.lsq import (
    Grid,
    grid_table,
    mixed_quantized,
    mixed_quantized_gradients,
    torch_mixed_quantized,
    torch_mixed_quantized_gradients,
)
from autoembed_kernels.native.loader import library
from autoembed_kernels.pair_products import pair_places, pair_products
from autoembed_kernels.repeated_update import repeated_low_row_update, repeated_row_update
from autoembed_kernels.row_update import RowOptimizer, row_update

MOST_ROWS = 500_000
SIZES = tuple(min(rows, MOST_ROWS) for rows in ROWS)
FIRST = torch.tensor([0, *SIZES]).cumsum(0)[:-1]
TOTAL, LOOKUPS = sum(SIZES), BATCH * FIELDS
RATE = 1e-3

Candidate = Callable[[int], Callable[[], object]]  # a batch -> what is timed


@dataclass(frozen=True)
class Piece:
    """Ratios: name -> (the peer, ours). Parts: nanoseconds of the parts of a step, of every step.

    Costs: name -> two of ours, the first's time over the second's; lower is better.
    """

    unit: str
    per_call: float
    candidates: dict[str, Candidate]
    ratios: dict[str, tuple[str, str]]
    parts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    costs: dict[str, tuple[str, str]] = field(default_factory=dict)
    clock: Callable[[], int] = time.thread_time_ns


def ids_of_batches() -> list[Tensor]:
    return [torch.minimum(ids, torch.tensor(SIZES) - 1) for ids in batches()]


def in_pages(held: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: in_large_pages(tensor) for name, tensor in held.items()}


def update(dim: int) -> Piece:
    """Gradients of the look-ups to updated rows, stored in float32, float16 and int8."""
    rows = [(ids + FIRST).flatten() for ids in ids_of_batches()]
    gradient = 0.01 * torch.randn(LOOKUPS, dim)
    optimizer = RowOptimizer("rowwise_adagrad")
    weight = in_large_pages(0.01 * torch.randn(TOTAL, dim))
    state = in_pages(optimizer.state(weight))

    def float32(i: int) -> Callable[[], object]:
        return lambda: repeated_row_update(optimizer, weight, state, rows[i], gradient, RATE)

    def apart(i: int) -> Callable[[], object]:
        def timed() -> None:
            unique, repeats = dedupe(rows[i], TOTAL)
            summed = sum_repeats(gradient, repeats.order, repeats.starts)
            row_update(optimizer, weight, state, unique, summed, RATE)

        return timed

    candidates: dict[str, Candidate] = {"ours float32": float32, "ours float32, one pass each": apart}
    for name, dtype in (("float16", torch.float16), ("int8", torch.int8)):
        low = in_large_pages((weight * (100 if dtype == torch.int8 else 1)).to(dtype))
        steps = torch.full((TOTAL,), 2.0**-13, dtype=torch.float16) if dtype == torch.int8 else None
        for rounding, seed in (("stochastic", (1, 1)), ("nearest", None)):
            own_state = in_pages(optimizer.state(weight))

            def low_update(i: int, w=low, s=steps, o=own_state, c=seed) -> Callable[[], object]:  # type: ignore[no-untyped-def]
                return lambda: repeated_low_row_update(optimizer, w, s, o, rows[i], gradient, RATE, c)

            candidates[f"ours {name} {rounding}"] = low_update
    suffix = "" if dim == 16 else f"_dim{dim}"
    ratios: dict[str, tuple[str, str]] = {}
    costs = {
        f"fp16_sr_over_nearest{suffix}": ("ours float16 stochastic", "ours float16 nearest"),
        f"int8_sr_over_nearest{suffix}": ("ours int8 stochastic", "ours int8 nearest"),
        f"int8_sr_over_own_fp32{suffix}": ("ours int8 stochastic", "ours float32"),
    }
    if fbgemm():
        back = gradient.view(BATCH, FIELDS * dim)
        for name in ("fp32", "fp16"):
            tables, given = fbgemm_tables(name, dim)

            def theirs(i: int, t=tables, g=given) -> Callable[[], object]:  # type: ignore[no-untyped-def]
                out = t(*g[i])
                return lambda: out.backward(back)

            candidates[f"fbgemm {name}"] = theirs
        ratios[f"fp32_update_vs_fbgemm{suffix}"] = ("fbgemm fp32", "ours float32")
        ratios[f"fp16_sr_update_vs_fbgemm{suffix}"] = ("fbgemm fp16", "ours float16 stochastic")
        ratios[f"int8_sr_update_vs_fbgemm_fp16{suffix}"] = ("fbgemm fp16", "ours int8 stochastic")
    return Piece("ns per look-up", LOOKUPS, candidates, ratios, costs=costs)


def fbgemm_tables(name: str, dim: int) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """FBGEMM's training tables with row-wise Adagrad (float16 rounds by chance), and its batches."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType, SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows in SIZES],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=RATE,
        weights_precision={"fp32": SparseType.FP32, "fp16": SparseType.FP16}[name],
        stochastic_rounding=name == "fp16",
    )
    tables.init_embedding_weights_uniform(-0.02, 0.02)
    for held in (*tables.parameters(), *tables.buffers()):
        in_large_pages(held)
    offsets = torch.arange(LOOKUPS + 1)
    return tables, [(ids.T.contiguous().flatten(), offsets) for ids in ids_of_batches()]


def interaction(dim: int) -> Piece:
    """Products of all pairs of 27 vectors, forward and backward."""
    vectors = [torch.randn(BATCH, FIELDS + 1, dim, requires_grad=True) for _ in range(BATCHES)]
    upper, mirrored = pair_places(FIELDS + 1)
    gradient = torch.randn(BATCH, len(upper))

    def bmm(i: int) -> Callable[[], object]:
        vectors[i].grad = None

        def timed() -> None:
            products = torch.bmm(vectors[i], vectors[i].transpose(1, 2)).flatten(1)
            products.index_select(1, upper).backward(gradient)

        return timed

    def ours(i: int) -> Callable[[], object]:
        vectors[i].grad = None
        return lambda: pair_products(vectors[i], upper, mirrored).backward(gradient)

    suffix = "" if dim == 16 else f"_dim{dim}"
    return Piece(
        "ms per batch",
        1e6,
        {"bmm and index_select": bmm, "ours": ours},
        {f"interaction_vs_bmm{suffix}": ("bmm and index_select", "ours")},
    )


def mixture(dim: int) -> Piece:
    """A mixture of MPE's seven widths for the distinct rows of a batch, forward and backward."""
    grids = grid_table([Grid(bits) for bits in (1, 2, 3, 4, 5, 6, 8)])
    steps, offset, scales = torch.full((7,), 0.02), torch.zeros(dim), torch.ones(7)
    values = [0.1 * torch.randn(len((ids + FIRST).unique()), dim) for ids in ids_of_batches()]
    weights = [torch.softmax(torch.randn(len(one), 7), dim=1) for one in values]

    def ours(i: int) -> Callable[[], object]:
        def timed() -> None:
            out = mixed_quantized(values[i], steps, offset, grids, weights[i])
            mixed_quantized_gradients(out, values[i], steps, offset, grids, scales, weights[i])

        return timed

    def by_torch(i: int) -> Callable[[], object]:
        def timed() -> None:
            out = torch_mixed_quantized(values[i], steps, offset, grids, weights[i])
            torch_mixed_quantized_gradients(out, values[i], steps, offset, grids, scales, weights[i])

        return timed

    ratios = {"mixture_vs_torch": ("torch", "ours")}
    return Piece("ms per batch", 1e6, {"torch": by_torch, "ours": ours}, ratios)


def bits(dim: int) -> Piece:
    """Codes of 3 bits of 100,000 rows to bytes, and back."""
    codes = torch.randint(8, (100_000, dim), dtype=torch.uint8)
    packed = pack_bits(codes, 3)
    candidates: dict[str, Candidate] = {
        "pack, torch": lambda i: lambda: torch_pack_bits(codes, 3),
        "pack, ours": lambda i: lambda: pack_bits(codes, 3),
        "unpack, torch": lambda i: lambda: torch_unpack_bits(packed, dim, 3),
        "unpack, ours": lambda i: lambda: unpack_bits(packed, dim, 3),
    }
    ratios = {f"{way}_bits_vs_torch": (f"{way}, torch", f"{way}, ours") for way in ("pack", "unpack")}
    return Piece("ns per code", codes.numel(), candidates, ratios)


def threads(dim: int, clock: Callable[[], int]) -> Piece:
    """Gradients of look-ups to updated rows with 1, 2 and 4 threads, by the wall's clock or by their work."""
    rows = [(ids + FIRST).flatten() for ids in ids_of_batches()]
    gradient = 0.01 * torch.randn(LOOKUPS, dim)
    optimizer = RowOptimizer("rowwise_adagrad")
    weight = in_large_pages(0.01 * torch.randn(TOTAL, dim))
    state = in_pages(optimizer.state(weight))
    candidates: dict[str, Candidate] = {}
    for workers in (1, 2, 4):

        def update_with(i: int, workers: int = workers) -> Callable[[], object]:
            torch.set_num_threads(workers)
            return lambda: repeated_row_update(optimizer, weight, state, rows[i], gradient, RATE)

        candidates[f"{workers} thread{'s' if workers > 1 else ''}"] = update_with
    pairs = {n: ("1 thread", f"{n} threads") for n in (2, 4)}
    if clock is time.process_time_ns:
        costs = {f"update_work_of_{n}_threads": pair[::-1] for n, pair in pairs.items()}
        return Piece("ns of all threads per look-up", LOOKUPS, candidates, {}, costs=costs, clock=clock)
    ratios = {f"update_{n}_threads_vs_1": pair for n, pair in pairs.items()}
    return Piece("ns per look-up", LOOKUPS, candidates, ratios, clock=clock)


class BmmProducts(nn.Module):
    """Products of pairs as public code of DLRM takes them: the peers' steps multiply so."""

    def __init__(self, vectors: int) -> None:
        super().__init__()
        self.register_buffer("upper", pair_places(vectors)[0])

    def forward(self, vectors: Tensor) -> Tensor:
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        return products.index_select(1, self.upper)


class TimedProducts(nn.Module):
    """Products of pairs; `spent` are the nanoseconds of the last forward and backward pass."""

    def __init__(self, products: nn.Module) -> None:
        super().__init__()
        self.products = products
        self.spent = 0

    def forward(self, vectors: Tensor) -> Tensor:
        def arrived(gradient: Tensor) -> None:
            self.spent -= time.thread_time_ns()

        def left(gradient: Tensor) -> None:
            self.spent += time.thread_time_ns()

        started = time.thread_time_ns()
        out: Tensor = self.products(vectors)
        self.spent = time.thread_time_ns() - started
        out.register_hook(arrived)
        vectors.register_hook(left)
        return out


def train_step(dim: int, adam: bool) -> Piece:
    """The whole step of DLRM with the tables' Adam, or with row-wise Adagrad."""
    bottom = (512, 256, 64)
    model = ModelConfig(name="dlrm", dim=dim, bottom=bottom, hidden=(512, 256), concat_embeddings=False)
    ids = ids_of_batches()
    drawn = torch.Generator().manual_seed(0)
    examples = BATCH * len(ids)
    labels = torch.rand(examples, generator=drawn).lt(0.25).float()
    rows = Rows(labels, torch.randn(examples, DENSE, generator=drawn), torch.cat(ids).int(), {})
    # batch i holds its examples in another order, which changes no candidate's work but the reading of them
    order = torch.cat([start + torch.randperm(BATCH, generator=drawn) for start in range(0, examples, BATCH)])
    ids = [rows.batch(start, start + BATCH, order).ids for start in range(0, examples, BATCH)]
    parts: dict[str, dict[str, list[int]]] = {}

    def stepped(
        name: str, look_up: Callable[[int, Batch], Tensor], update_rows: Callable[[], object], as_public: bool
    ) -> Candidate:
        network = build_network(model, FIELDS, DENSE, torch.Generator().manual_seed(0))
        if as_public:
            network.bottom, network.top = nn.Sequential(*network.bottom), nn.Sequential(*network.top)
        network.products = products = TimedProducts(
            BmmProducts(FIELDS + 1) if as_public else network.products
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
        clock = time.thread_time_ns
        spent = parts.setdefault(
            name, {part: [] for part in ("data", "embedding", "interaction", "mlp", "dense optimizer")}
        )

        def step(i: int) -> None:
            started = clock()
            batch = rows.batch(i * BATCH, (i + 1) * BATCH, order)
            read = clock()
            vectors = look_up(i, batch)
            passed: list[int] = []
            # the table's part of the backward pass is the last
            vectors.register_hook(lambda gradient: passed.append(clock()))
            looked_up = clock()
            optimizer.zero_grad(set_to_none=True)
            logits = network(batch.dense, vectors)
            binary_cross_entropy_with_logits(logits, batch.labels).backward()  # type: ignore[no-untyped-call]
            back = clock()
            optimizer.step()
            stepped_dense = clock()
            update_rows()
            ended = clock()
            spent["data"].append(read - started)
            spent["embedding"].append(looked_up - read + back - passed[0] + ended - stepped_dense)
            spent["interaction"].append(products.spent)
            spent["mlp"].append(passed[0] - looked_up - products.spent)
            spent["dense optimizer"].append(stepped_dense - back)

        return lambda i: lambda: step(i)

    counts = tuple(FieldStats(f"C{i}", np.zeros(rows, dtype=np.int64)) for i, rows in enumerate(SIZES))
    spec = TableSpec(Stats(counts), dim, PROFILES["packed"])

    def our_step(name: str, method: Method) -> Candidate:
        optimizer = RowOptimizer("adam" if adam else "rowwise_adagrad")
        table = method.table(spec, torch.Generator().manual_seed(0), optimizer)
        return stepped(name, lambda i, batch: table(batch), lambda: table.update(RATE), as_public=False)

    candidates: dict[str, Candidate] = {"ours float32": our_step("ours float32", FullPrecision())}
    ratios: dict[str, tuple[str, str]] = {}
    if adam:
        bags = nn.ModuleList(nn.EmbeddingBag(rows, dim, mode="sum", sparse=True) for rows in SIZES)
        sparse = torch.optim.SparseAdam(list(bags.parameters()), lr=RATE)
        offsets = torch.arange(BATCH)
        for parameter in bags.parameters():
            in_large_pages(parameter)
        in_place: list[Tensor] = []  # once there are moments

        def bag_vectors(i: int, batch: Batch) -> Tensor:
            vectors = [bag(batch.ids[:, f].contiguous(), offsets) for f, bag in enumerate(bags)]
            return torch.stack(vectors, dim=1)

        def sparse_step() -> None:
            sparse.step()
            if not in_place:
                for moments in sparse.state.values():
                    in_place.extend(in_large_pages(m) for m in moments.values() if isinstance(m, Tensor))
            sparse.zero_grad(set_to_none=True)

        peer = "26 EmbeddingBag and SparseAdam"
        for name, as_public in ((peer, True), (f"{peer}, our network", False)):
            candidates[name] = stepped(name, bag_vectors, sparse_step, as_public)
        ratios[f"train_step_dim{dim}_vs_sparse_adam"] = (peer, "ours float32")
        ratios[f"train_step_dim{dim}_vs_sparse_adam_same_network"] = (f"{peer}, our network", "ours float32")
        return Piece("ms per step", 1e6, candidates, ratios, parts)
    best = "ours float32"
    if dim == 64:
        best = "ours int8 stochastic"
        candidates[best] = our_step(best, LowPrecision(format="int8"))
    if fbgemm():
        tables, _ = fbgemm_tables("fp32", dim)
        starts = torch.arange(LOOKUPS + 1)
        # in the order of its tables, made beforehand
        indices = [one.T.contiguous().flatten() for one in ids]
        for name, as_public in (("fbgemm float32", True), ("fbgemm float32, our network", False)):
            candidates[name] = stepped(
                name,
                lambda i, batch: tables(indices[i], starts).view(BATCH, FIELDS, dim),
                lambda: None,
                as_public,
            )
        ratios[f"train_step_dim{dim}_vs_fbgemm"] = ("fbgemm float32", best)
        ratios[f"train_step_dim{dim}_vs_fbgemm_same_network"] = ("fbgemm float32, our network", best)
    if dim == 16:
        candidates["bound"] = bound(model, [(one + FIRST).flatten() for one in ids])
        ratios["train_step_vs_bound"] = ("bound", "ours float32")
    return Piece("ms per step", 1e6, candidates, ratios, parts)


def bound(model: ModelConfig, rows: Sequence[Tensor]) -> Candidate:
    """The network's products of matrices, its optimizer, and a copy of looked-up rows forward and back."""
    network = build_network(model, FIELDS, DENSE, torch.Generator().manual_seed(0))
    layers = [layer.weight for layer in network.modules() if isinstance(layer, nn.Linear)]
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    table = in_large_pages(torch.randn(TOTAL, model.dim))
    inputs = [torch.randn(BATCH, weight.shape[1]) for weight in layers]
    outputs = [torch.randn(BATCH, weight.shape[0]) for weight in layers]
    into_input, into_weight = ([torch.empty_like(x) for x in held] for held in (inputs, layers))
    into_output = [torch.empty_like(x) for x in outputs]

    @torch.no_grad()
    def timed(i: int) -> None:
        take_rows(table, rows[i])
        for at, weight in enumerate(layers):
            torch.mm(inputs[at], weight.T, out=into_output[at])
            torch.mm(outputs[at].T, inputs[at], out=into_weight[at])
            if weight.shape[1] != DENSE:  # nobody asks for the gradient of the dense features
                torch.mm(outputs[at], weight, out=into_input[at])
        optimizer.step()
        take_rows(table, rows[i])

    return lambda i: lambda: timed(i)


PIECES: dict[str, Callable[[], Piece]] = {
    "update_rowwise": lambda: update(16),
    "update_rowwise_dim64": lambda: update(64),
    "interaction": lambda: interaction(16),
    "interaction_dim64": lambda: interaction(64),
    "mixture": lambda: mixture(16),
    "bits": lambda: bits(16),
    "update_threads": lambda: threads(16, time.perf_counter_ns),
    "update_threads_work": lambda: threads(16, time.process_time_ns),
    "train_step": lambda: train_step(16, adam=False),
    "train_step_adam": lambda: train_step(16, adam=True),
    "train_step_dim64": lambda: train_step(64, adam=False),
}


def measured(piece: Piece, rounds: int) -> dict[str, list[float]]:
    """Times of every candidate by round and batch, in the piece's unit; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in piece.candidates}
    order = random.Random(0)
    for counted in range(rounds + 1):
        for batch in range(BATCHES):
            for name in order.sample(list(times), len(times)):
                timed = piece.candidates[name](batch)
                started = piece.clock()
                timed()
                taken = (piece.clock() - started) / piece.per_call
                if counted:
                    times[name].append(taken)
    return times


def quotients(
    times: dict[str, list[float]], of: dict[str, tuple[str, str]], together: bool
) -> dict[str, float]:
    """Medians over the turns of the first's time over the second's; of their sums `together`."""
    if together:
        return {name: round(sum(times[over]) / sum(times[under]), 3) for name, (over, under) in of.items()}
    return {
        name: round(statistics.median(a / b for a, b in zip(times[over], times[under], strict=True)), 3)
        for name, (over, under) in of.items()
    }


def keep_memory() -> None:
    """glibc's thresholds of `autoembed.search.pool`; elsewhere nothing."""
    mmap_threshold, trim_threshold = -3, -1
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**25)
        libc.mallopt(trim_threshold, 2**28)


def summary(times: Sequence[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(times, n=4)
    mean = statistics.mean(times)
    return {"median": round(median, 2), "p25": round(low, 2), "p75": round(high, 2), "mean": round(mean, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="*", choices=[[], *PIECES], help="pieces to run; none: all")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "cpu.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    if library() is None:
        raise SystemExit("the C++ library is not available, there is nothing to measure")
    for name in arguments.pieces or PIECES:
        piece = PIECES[name]()
        times = measured(piece, arguments.rounds)
        torch.set_num_threads(1)
        record: dict[str, object] = {
            "unit": piece.unit,
            "rows": TOTAL,
            "rounds": arguments.rounds,
            "torch": torch.__version__,
            "fbgemm_gpu_cpu": "1.8.0" if fbgemm() else None,
            "processor": processor(),
            "candidates": {candidate: summary(taken) for candidate, taken in times.items()},
        }
        if piece.parts:
            record["parts_ms"] = {
                candidate: {part: round(statistics.median(spent) / 1e6, 2) for part, spent in held.items()}
                for candidate, held in piece.parts.items()
            }
        # what other threads took arrives a clock tick later, in another call than it was spent in
        together = piece.clock is time.process_time_ns
        ratios = quotients(times, piece.ratios, together)
        if piece.costs:
            record["time_over"] = quotients(times, piece.costs, together)
        print(name, json.dumps({**record, "ratios": ratios}, indent=1), flush=True)
        kept(arguments.out, name, record, ratios)


if __name__ == "__main__":
    main()
