"""Distinct rows and the gradient of repeats against torch.unique and torch's own indexing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.dedupe import INT32_ROWS, dedupe, reference, repeat, sum_repeats, take_rows

LOOKUPS = st.integers(1, 40).flatmap(
    lambda bound: st.tuples(st.just(bound), st.lists(st.integers(0, bound - 1), max_size=80))
)


@settings(deadline=None, max_examples=50)
@given(LOOKUPS)
def test_distinct_rows_and_places_equal_the_reference(case: tuple[int, list[int]]) -> None:
    bound, values = case
    rows = torch.tensor(values, dtype=torch.int64)
    unique, repeats = dedupe(rows, bound)
    expected, inverse = reference(rows)
    assert torch.equal(unique, expected)
    assert torch.equal(repeats.inverse, inverse)
    for place, row in enumerate(unique):
        stop = repeats.starts[place + 1] if place + 1 < len(unique) else len(rows)
        readers = repeats.order[repeats.starts[place] : stop]
        assert torch.equal(readers, (rows == row).nonzero().squeeze(1)), "each reader once, in batch order"


@pytest.mark.parametrize("rows", [[], [3], [5] * 7, list(range(13)), list(range(12, -1, -1))])
@pytest.mark.parametrize("dim", [1, 3, 8])
def test_gradients_of_repeats_equal_those_of_indexing(rows: list[int], dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    unique, repeats = dedupe(torch.tensor(rows, dtype=torch.int64), 13)
    values = torch.randn(len(unique), dim, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(rows), dim, generator=generator, dtype=torch.float64)
    spread = repeat(values, repeats)
    assert torch.equal(spread, values[repeats.inverse])
    (fast,) = torch.autograd.grad((spread * weights).sum(), values)
    (slow,) = torch.autograd.grad((values[repeats.inverse] * weights).sum(), values)
    # the same numbers added in another order
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)


def test_rows_beyond_32_bits_are_told_apart() -> None:
    rows = torch.tensor([2**33 + 1, 1, 2**33 + 1, 2**31, 1])
    unique, repeats = dedupe(rows, 2**34)
    assert unique.tolist() == [1, 2**31, 2**33 + 1]
    assert torch.equal(unique[repeats.inverse], rows)


def test_the_largest_32_bit_row_survives() -> None:
    rows = torch.tensor([INT32_ROWS - 1, 0, INT32_ROWS - 1])
    unique, _ = dedupe(rows, INT32_ROWS)
    assert unique.tolist() == [0, INT32_ROWS - 1]


def test_a_large_batch_repeats_for_any_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(0, 5000, (60_000,), generator=generator)
    gradient = torch.randn(60_000, 16, generator=generator)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            unique, repeats = dedupe(rows, 5000)
            values = torch.zeros(len(unique), 16, requires_grad=True)
            repeat(values, repeats).backward(gradient)
            results.append((unique, repeats.inverse, values.grad))
    finally:
        torch.set_num_threads(before)
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same_rows() -> None:
    rows = torch.randint(0, 300, (5000,), generator=torch.Generator().manual_seed(2))
    unique, repeats = dedupe(rows, 300)
    unique_gpu, repeats_gpu = dedupe(rows.cuda(), 300)
    assert torch.equal(unique_gpu.cpu(), unique)
    assert torch.equal(repeats_gpu.inverse.cpu(), repeats.inverse)
    assert torch.equal(repeats_gpu.order.cpu(), repeats.order)


def test_rows_of_32_bits_are_those_of_64() -> None:
    rows = torch.tensor([4, 1, 4, 0], dtype=torch.int32)
    unique, repeats = dedupe(rows, 5)
    expected, places = dedupe(rows.long(), 5)
    assert unique.dtype == torch.int64 and torch.equal(unique, expected)
    assert torch.equal(repeats.inverse, places.inverse)
    table, gradient = torch.arange(10.0).view(5, 2), torch.arange(8.0).view(4, 2)
    assert torch.equal(take_rows(table, rows), table[rows.long()])
    summed = sum_repeats(gradient, places.order, places.starts)
    assert torch.equal(sum_repeats(gradient, places.order.int(), places.starts.int()), summed)


def test_other_shapes_are_refused() -> None:
    rows, table, gradient = torch.tensor([[1, 2], [3, 4]]), torch.zeros(5, 2), torch.zeros(4, 2)
    order, starts = torch.arange(4), torch.tensor([0, 2])
    for call in (
        lambda: dedupe(rows, 5),
        lambda: dedupe(rows[0].float(), 5),
        lambda: take_rows(table, rows),
        lambda: sum_repeats(gradient[0], order, starts),
        lambda: sum_repeats(gradient, order[:3], starts),
        lambda: sum_repeats(gradient, order, starts.view(1, 2)),
        lambda: sum_repeats(gradient, order, starts.float()),
    ):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            call()
