"""Row updates and sums of repeated gradients in Triton: in Triton's interpreter, or on a GPU."""

import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoembed_kernels.dedupe import Repeats, torch_dedupe
from autoembed_kernels.low_row_update import low_row_values, torch_low_row_update, write_low_rows
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.dedupe import CHUNK, padded_dedupe, triton_sum_repeats  # noqa: E402
from autoembed_kernels.gpu.row_update import triton_row_update  # noqa: E402

# the interpreter takes tens of milliseconds for each example, and shrinking would try hundreds
few = settings(deadline=None, max_examples=15, phases=[Phase.generate])
HEIGHT = 40
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8], ids=str)


def looked_up(count: int, seed: int) -> Tensor:
    """(count,) rows below HEIGHT, the first ones far more often than the last."""
    drawn = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return (drawn**4 * HEIGHT).long().to(DEVICE)


def summed(rows: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct rows and the float64 sums of their gradients."""
    unique, inverse = torch.unique(rows, return_inverse=True)
    sums = torch.zeros(len(unique), gradient.shape[1], dtype=torch.float64, device=DEVICE)
    return unique, sums.index_add_(0, inverse, gradient.double())


@given(
    st.sampled_from([0, 1, CHUNK - 1, CHUNK, 2 * CHUNK + 1, 700]),
    st.sampled_from([1, 3, 16, 19]),
    st.integers(0, 2**32),
)
@few
def test_repeated_gradients_are_summed_over_all_their_look_ups(count: int, dim: int, seed: int) -> None:
    rows = looked_up(count, seed)
    gradient = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)).to(DEVICE)
    _, repeats = torch_dedupe(rows, HEIGHT)
    found = triton_sum_repeats(gradient, repeats.order, repeats.starts)
    expected = summed(rows, gradient)[1]
    # sums of at most 700 float32 numbers below 5
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(found, triton_sum_repeats(gradient, repeats.order, repeats.starts))


@pytest.mark.parametrize("row", [0, HEIGHT - 1])
def test_a_row_that_all_look_ups_read_gets_them_all(row: int) -> None:
    rows = torch.full((5 * CHUNK + 3,), row, device=DEVICE)
    _, repeats = torch_dedupe(rows, HEIGHT)
    ones = torch.ones(len(rows), 2, device=DEVICE)
    assert triton_sum_repeats(ones, repeats.order, repeats.starts).tolist() == [[len(rows)] * 2]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("dim", [1, 13, 16])
def test_updates_equal_the_reference_a_row_at_a_time(name: str, repeated: bool, dim: int) -> None:
    optimizer = RowOptimizer(name, l2=0.1)
    generator = torch.Generator().manual_seed(dim)
    weight = torch.randn(HEIGHT, dim, generator=generator).to(DEVICE)
    exact, state = weight.double(), optimizer.state(weight)
    exact_state = optimizer.state(exact)
    for step in range(3):
        rows = looked_up(3 * CHUNK + 7, step)
        gradient = torch.randn(len(rows), dim, generator=generator).to(DEVICE)
        unique, sums = summed(rows, gradient)
        if repeated:
            found, *spans = padded_dedupe(rows, HEIGHT) if step == 1 else flat(*torch_dedupe(rows, HEIGHT))
            triton_row_update(optimizer, weight, state, found, gradient, 0.05, spans=tuple(spans))
        else:
            triton_row_update(optimizer, weight, state, unique, sums.float(), 0.05)
        reference(optimizer, exact, exact_state, unique, sums, 0.05)
    # float32 against float64 over three steps of size 0.05
    torch.testing.assert_close(weight.double(), exact, rtol=1e-4, atol=1e-5)
    for key in optimizer.state_names:
        torch.testing.assert_close(state[key].double(), exact_state[key].double(), rtol=1e-4, atol=1e-5)


def flat(unique: Tensor, repeats: Repeats) -> tuple[Tensor, ...]:
    return unique, repeats.order, repeats.starts


def test_other_rows_and_their_state_stay_untouched() -> None:
    for name in OPTIMIZERS:
        optimizer = RowOptimizer(name, l2=0.1)
        weight = torch.randn(HEIGHT, 4, generator=torch.Generator().manual_seed(1)).to(DEVICE)
        before, state = weight.clone(), optimizer.state(weight)
        rows = torch.tensor([1, HEIGHT - 1], device=DEVICE)
        triton_row_update(optimizer, weight, state, rows, torch.ones(2, 4, device=DEVICE), 0.05)
        changed = (weight != before).any(1)
        assert changed.nonzero().flatten().tolist() == [1, HEIGHT - 1]
        assert all(not state[key][~changed].any() for key in state)


def test_rows_of_32_bits_are_updated_like_rows_of_64() -> None:
    changed = []
    for dtype in (torch.int32, torch.int64):
        weight = torch.zeros(HEIGHT, 3, device=DEVICE)
        rows = torch.tensor([5, HEIGHT - 1], dtype=dtype, device=DEVICE)
        triton_row_update(RowOptimizer("sgd"), weight, {}, rows, torch.ones(2, 3, device=DEVICE), 0.5)
        changed.append(weight)
    assert torch.equal(*changed) and changed[0].sum() == -3.0


def coarse(generator: torch.Generator, *shape: int) -> Tensor:
    """Multiples of 1/64 below 1: sums and products of them are exact in float32."""
    return (torch.randint(-63, 64, shape, generator=generator) / 64).to(DEVICE)


@DTYPES
@given(
    st.sampled_from([1, 3, 8, 16]), st.booleans(), st.integers(0, 2**63), st.integers(0, 2**31), st.booleans()
)
@few
def test_low_rows_are_cast_to_the_same_bits_as_in_torch(
    dtype: torch.dtype, dim: int, by_chance: bool, seed: int, update: int, repeated: bool
) -> None:
    generator = torch.Generator().manual_seed(seed % 2**32)
    optimizer = RowOptimizer("sgd")
    every = torch.arange(HEIGHT, device=DEVICE)
    weight = torch.zeros(HEIGHT, dim, dtype=dtype, device=DEVICE)
    steps = torch.zeros(HEIGHT, dtype=torch.float16, device=DEVICE) if dtype is torch.int8 else None
    write_low_rows(weight, steps, every, coarse(generator, HEIGHT, dim), None)
    chance = (seed, update) if by_chance else None
    rows = looked_up(70, seed % 1000)
    gradient = coarse(generator, 70, dim)
    unique, sums = summed(rows, gradient)

    expected = weight.clone()
    expected_steps = None if steps is None else steps.clone()
    values = low_row_values(expected, expected_steps, unique)
    rate = 2.0**-4
    torch_low_row_update(
        *(optimizer, expected, expected_steps, {}, unique, values, sums.float(), rate), chance
    )
    held = {"steps": steps, "chance": chance}
    if repeated:
        found, repeats = torch_dedupe(rows, HEIGHT)
        spans = (repeats.order, repeats.starts)
        triton_row_update(optimizer, weight, {}, found, gradient, rate, spans=spans, **held)
    else:
        triton_row_update(optimizer, weight, {}, unique, sums.float(), rate, **held)
    assert torch.equal(weight.view(torch.int8), expected.view(torch.int8))
    if steps is not None and expected_steps is not None:
        assert torch.equal(steps, expected_steps)


@DTYPES
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_low_rows_take_the_step_of_every_optimizer(dtype: torch.dtype, name: str) -> None:
    optimizer = RowOptimizer(name)
    generator = torch.Generator().manual_seed(0)
    every = torch.arange(HEIGHT, device=DEVICE)
    weight = torch.zeros(HEIGHT, 7, dtype=dtype, device=DEVICE)
    steps = torch.zeros(HEIGHT, dtype=torch.float16, device=DEVICE) if dtype is torch.int8 else None
    write_low_rows(weight, steps, every, torch.randn(HEIGHT, 7, generator=generator).to(DEVICE), None)
    gradient = torch.randn(HEIGHT, 7, generator=generator).to(DEVICE)
    expected, expected_steps = weight.clone(), None if steps is None else steps.clone()
    state, expected_state = ({k: v for k, v in optimizer.state(gradient).items()} for _ in range(2))
    values = low_row_values(weight, steps, every)
    torch_low_row_update(
        *(optimizer, expected, expected_steps, expected_state, every, values, gradient, 0.05), (5, 1)
    )
    triton_row_update(optimizer, weight, state, every, gradient, 0.05, steps=steps, chance=(5, 1))
    for key in state:
        torch.testing.assert_close(state[key], expected_state[key], rtol=1e-5, atol=1e-6)
    # a sum rounded otherwise in its last bit may turn one cast in thousands
    same = weight.view(torch.int8) == expected.view(torch.int8)
    assert same.float().mean() > 0.99
