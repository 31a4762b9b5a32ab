"""The public functions take the Triton way for tensors on a GPU, and give what the others give.

Without a GPU the question whether there is one is answered with yes, and Triton's interpreter serves.
"""

import importlib
import os
from collections.abc import Callable

import pytest
import torch
from random_plans import packed_with_rows
from torch import Tensor

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed_kernels import (
    bitpack,
    dedupe,
    low_row_update,
    lsq,
    pair_products,
    philox,
    pool_packed,
    row_update,
)
from autoembed_kernels import cache_probe as probing
from autoembed_kernels import chunk_look_up as looking_up
from autoembed_kernels import chunk_step as stepping
from autoembed_kernels import stochastic_round as rounding
from autoembed_kernels.gather_packed import gather_packed

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

FRONTS = (
    *("bitpack", "cache_probe", "chunk_look_up", "chunk_step", "dedupe", "gather_packed", "look_up_packed"),
    *("look_up_shared", "low_row_update", "lsq", "pair_products", "philox", "pool_packed", "row_update"),
    "stochastic_round",
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


ROWS = torch.tensor([5, 2, 5, 0, 2, 5, 9])


def table() -> PackedTable:
    hashed = Segment(9, 40, Sharing.HASHED, 7, 5, "fp16")
    items = FieldPlan("items", 40, 5, (own(0, 2, 5, "fp32"), own(2, 9, 4, "int3", scale=0), hashed))
    return PackedTable(packed_with_rows(Plan(PROFILES["packed"], (items,)), 1)[0]).to(DEVICE)


def paired_table() -> PackedTable:
    pairs = Segment(1, 40, Sharing.QUOTIENT_MULTIPLY, 14, 5, "fp32")
    items = FieldPlan("items", 40, 5, (own(0, 1, 5, "fp32"), pairs))
    return PackedTable(packed_with_rows(Plan(PROFILES["packed"], (items,)), 1)[0]).to(DEVICE)


def repeated() -> list[Tensor]:
    values = drawn(4, 3).requires_grad_()
    _, repeats = dedupe.dedupe(ROWS.to(DEVICE), 10)
    made = dedupe.repeat(values, repeats)
    return [made.detach(), *torch.autograd.grad((made * drawn(7, 3, seed=1)).sum(), values)]


def updated() -> list[Tensor]:
    weight, optimizer = drawn(10, 3), row_update.RowOptimizer("adam")
    state = optimizer.state(weight)
    rows = torch.tensor([1, 8], device=DEVICE)
    row_update.row_update(optimizer, weight, state, rows, drawn(2, 3, seed=1), 0.1)
    return [weight, *state.values()]


def low_updated() -> list[Tensor]:
    weight = (drawn(10, 3) * 20).to(torch.int8)
    steps = torch.full((10,), 0.125, dtype=torch.float16, device=DEVICE)
    rows = torch.tensor([1, 8], device=DEVICE)
    values = low_row_update.low_row_values(weight, steps, rows)
    gradient = torch.full((2, 3), 0.5, device=DEVICE)
    held = (row_update.RowOptimizer("sgd"), weight, steps, {}, rows, values)
    low_row_update.low_row_update(*held, gradient, 0.25, (3, 1))
    return [weight, steps]


def multiplied() -> list[Tensor]:
    x = drawn(3, 5, 4).requires_grad_()
    products = pair_products.pair_products(x, *(p.to(DEVICE) for p in pair_products.pair_places(5)))
    return [products.detach(), *torch.autograd.grad((products * drawn(3, 10, seed=1)).sum(), x)]


def quantized(mixed: bool) -> list[Tensor]:
    values, steps, zero = drawn(6, 4), torch.tensor([0.4, -0.1], device=DEVICE), drawn(4, seed=2) * 0.1
    leaves = [each.requires_grad_() for each in (values, steps, zero)]
    grids = lsq.grid_table([lsq.Grid(2), lsq.Grid(4)]).to(DEVICE)
    scales = torch.ones(2, device=DEVICE)
    if mixed:
        made = lsq.mix_quantized(values, steps, grids, scales, drawn(6, 2, seed=3).softmax(1), zero)
    else:
        which = torch.tensor([0, 1, 1, 0, 1, 0], device=DEVICE)
        made = lsq.fake_quantize(values, steps, grids, scales, which, zero)
    return [made.detach(), *torch.autograd.grad((made * drawn(6, 4, seed=1)).sum(), leaves)]


def pointers() -> Tensor:
    return torch.tensor([[2, -1], [-1, -1], [0, 3]], dtype=torch.int32, device=DEVICE)


def stepped() -> list[Tensor]:
    pool, used, optimizer = drawn(4, 3), torch.zeros(3, 2, device=DEVICE), row_update.RowOptimizer("adagrad")
    state = optimizer.state(pool)
    entries = torch.tensor([2, 0], device=DEVICE)
    stepping.chunk_step(optimizer, pool, state, used, pointers(), entries, drawn(2, 6, seed=1), 0.1)
    return [pool, used, *state.values()]


def words() -> Tensor:
    return philox.row_chances(7, 1, torch.arange(4, device=DEVICE), 3)


def gathered() -> Tensor:
    held = table()
    segment, row = torch.tensor([0, 1, 2], device=DEVICE), torch.tensor([1, 6, 3], device=DEVICE)
    return gather_packed(held.words, held._held()[0], segment, row)


def pooled() -> Tensor:
    held = table()
    rows, offsets = torch.tensor([0, 39, 7, 7, 12], device=DEVICE), torch.tensor([0, 2, 2, 5], device=DEVICE)
    means = torch.tensor([True], device=DEVICE)
    return pool_packed.pool_packed(held.words, *held._held(), rows, offsets, means)


# launcher, by its module -> a call of a public function that must reach it
CALLS: dict[tuple[str, str], Callable[[], Tensor | list[Tensor]]] = {
    ("bitpack", "triton_pack_bits"): lambda: bitpack.pack_bits(
        torch.arange(12, device=DEVICE).view(2, 6) % 8, 3
    ),
    ("bitpack", "triton_unpack_bits"): lambda: bitpack.unpack_bits(
        torch.arange(6, dtype=torch.uint8, device=DEVICE).view(2, 3), 7, 3
    ),
    ("cache_probe", "triton_cache_probe"): lambda: probing.cache_probe(
        torch.tensor([4, -1, 7, 5], dtype=torch.int32, device=DEVICE), 4, ROWS.to(DEVICE), 10
    ),
    ("chunk_look_up", "triton_chunk_look_up"): lambda: looking_up.chunk_look_up(
        drawn(4, 3), pointers(), None, torch.tensor([2, 0, 2, 1], device=DEVICE)
    ),
    ("chunk_step", "triton_chunk_step"): stepped,
    ("philox", "triton_row_chances"): words,
    ("stochastic_round", "triton_stochastic_round"): lambda: rounding.stochastic_round(
        drawn(4, 3), words(), torch.float16
    ),
    ("stochastic_round", "triton_stochastic_codes"): lambda: rounding.stochastic_codes(
        drawn(4, 3), torch.full((4, 1), 0.05, device=DEVICE), words(), -127, 127
    ),
    ("dedupe", "triton_sum_repeats"): repeated,
    ("row_update", "triton_row_update"): updated,
    ("low_row_update", "triton_row_update"): low_updated,
    ("pair_products", "triton_products"): multiplied,
    ("pair_products", "triton_gradient"): multiplied,
    ("lsq", "triton_fake_quantized"): lambda: quantized(False),
    ("lsq", "triton_fake_quantized_gradients"): lambda: quantized(False),
    ("lsq", "triton_mixed_quantized"): lambda: quantized(True),
    ("lsq", "triton_mixed_quantized_gradients"): lambda: quantized(True),
    ("gather_packed", "triton_gather_packed"): gathered,
    ("pool_packed", "triton_pool_packed"): pooled,
    ("look_up_shared", "triton_look_up_shared"): lambda: paired_table().stored(
        torch.arange(40, device=DEVICE)
    ),
    ("look_up_packed", "triton_look_up_packed"): lambda: table().stored(torch.arange(40, device=DEVICE)),
}


def all_there(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether the tensors are where kernels run: packing on the way to a call is the CPU's work."""
    return all(tensor is None or tensor.device.type == DEVICE for tensor in tensors)


@pytest.mark.parametrize(("front", "launcher"), CALLS)
def test_a_public_function_reaches_its_kernel_and_gives_what_torch_gives(
    front: str, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the fused update serves both fronts
    module = importlib.import_module(f"autoembed_kernels.gpu.{front.removeprefix('low_')}")
    launched: list[str] = []
    original = getattr(module, launcher)

    def recorded(*args: object, **kwargs: object) -> object:
        launched.append(launcher)
        return original(*args, **kwargs)

    results = []
    for on_gpu in (True, False):
        with monkeypatch.context() as patched:
            patched.setattr(module, launcher, recorded)
            for name in FRONTS:
                there = importlib.import_module(f"autoembed_kernels.{name}")
                patched.setattr(there, "triton_for", lambda *tensors, yes=on_gpu: yes and all_there(tensors))
                if hasattr(there, "native_for"):
                    patched.setattr(there, "native_for", lambda *tensors: None)
            made = CALLS[front, launcher]()
            results.append([made] if isinstance(made, Tensor) else made)
        assert len(launched) == 1, "once, and not when there is no GPU"
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_every_launcher_has_such_a_call() -> None:
    sources = {name: importlib.import_module(f"autoembed_kernels.gpu.{name}") for name in FRONTS
               if name != "low_row_update"}  # fmt: skip
    launchers = {
        (name, each)
        for name, module in sources.items()
        for each, value in vars(module).items()
        if each.startswith("triton_") and value.__module__ == module.__name__
    }
    assert launchers == set(CALLS) - {("low_row_update", "triton_row_update")}
