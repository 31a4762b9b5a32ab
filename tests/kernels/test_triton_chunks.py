"""The chunk store in Triton: in Triton's interpreter, or on a GPU where there is one."""

import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from autoembed_kernels.chunk_look_up import ABSENT, torch_chunk_look_up
from autoembed_kernels.chunk_step import reference
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.chunk_look_up import triton_chunk_look_up  # noqa: E402
from autoembed_kernels.gpu.chunk_step import triton_chunk_step  # noqa: E402

# the interpreter takes tens of milliseconds for each example, and shrinking would try hundreds
few = settings(deadline=None, max_examples=12, phases=[Phase.generate])
ENTRIES, PLACES = 9, 12
SHAPES = st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3, 4, 7, 16]))


def store(chunks: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """pool, pointers and virtual entries, of which three ids have none; a third of the chunks is absent."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(PLACES, dim, generator=generator)
    pointers = torch.full((ENTRIES * chunks,), ABSENT, dtype=torch.int32)
    held = min(PLACES, 2 * len(pointers) // 3)
    at = torch.randperm(len(pointers), generator=generator)[:held]
    pointers[at] = torch.randperm(PLACES, generator=generator)[:held].int()
    entry = torch.full((ENTRIES + 3,), ABSENT, dtype=torch.int32)
    entry[torch.randperm(len(entry), generator=generator)[:ENTRIES]] = torch.arange(
        ENTRIES, dtype=torch.int32
    )
    return pool.to(DEVICE), pointers.view(ENTRIES, chunks).to(DEVICE), entry.to(DEVICE)


@given(
    SHAPES,
    st.sampled_from([0, 1, 70]),
    st.booleans(),
    st.sampled_from([torch.int64, torch.int32]),
    st.integers(0, 2**32),
)
@few
def test_vectors_are_those_of_torch(
    shape: tuple[int, int], count: int, virtual: bool, dtype: torch.dtype, seed: int
) -> None:
    pool, pointers, entry = store(*shape, seed)
    held = entry if virtual else None
    ids = ENTRIES + 3 if virtual else ENTRIES
    rows = torch.randint(0, ids, (count,), generator=torch.Generator().manual_seed(seed)).to(dtype).to(DEVICE)
    found = triton_chunk_look_up(pool, pointers, held, rows)
    assert torch.equal(found, torch_chunk_look_up(pool, pointers, held, rows))


@given(SHAPES, st.sampled_from(OPTIMIZERS), st.integers(0, ENTRIES), st.booleans(), st.integers(0, 2**32))
@few
def test_steps_are_those_of_the_reference(
    shape: tuple[int, int], name: str, count: int, narrow: bool, seed: int
) -> None:
    pool, pointers, _ = store(*shape, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = RowOptimizer(name, l2=0.1)
    entries = torch.randperm(ENTRIES, generator=generator)[:count].to(DEVICE)
    gradient = torch.randn(count, shape[0] * shape[1], generator=generator).to(DEVICE)
    utility = torch.rand(ENTRIES, shape[0], generator=generator).to(DEVICE)
    made = []
    for dtype in (torch.float32, torch.float64):
        own, used = pool.to(dtype, copy=True), utility.to(dtype, copy=True)
        state = optimizer.state(own)
        for _ in range(2):
            if dtype == torch.float32:
                chosen = entries.int() if narrow else entries
                triton_chunk_step(optimizer, own, state, used, pointers, chosen, gradient, 0.1)
            else:
                reference(optimizer, own, state, used, pointers, entries, gradient.double(), 0.1)
        made.append([own, used, *state.values()])
    for found, expected in zip(*made, strict=True):
        # Adam divides by roots of small squares
        torch.testing.assert_close(found.to(expected.dtype), expected, rtol=2e-4, atol=2e-5)


def test_what_is_not_finite_where_nothing_is_read_does_not_spread() -> None:
    pool = torch.tensor([[float("nan"), float("inf")], [1.0, 2.0]], device=DEVICE)
    pointers = torch.tensor([[ABSENT, 1], [0, ABSENT]], dtype=torch.int32, device=DEVICE)
    found = triton_chunk_look_up(pool, pointers, None, torch.tensor([0, 0, 0], device=DEVICE))
    assert torch.equal(found.cpu(), torch.tensor([[0.0, 0.0, 1.0, 2.0]]).expand(3, 4))
