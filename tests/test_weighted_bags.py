"""Bags with a weight for every id: pooling, gradients, packed look-ups and batches, against slow loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_plans import packed_with_rows, plans
from torch import Tensor

from autoembed.data.batch import Bag, Batch
from autoembed.data.rows import BagRows, Rows
from autoembed.lookup import look_up
from autoembed.packed import PackedTable
from autoembed.plan import Plan
from autoembed.tables import RowStore
from autoembed_kernels import gather_packed, look_up_packed
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.row_update import RowOptimizer

ROWS, DIM = 6, 3
# eighths, so that sums are exact and often cancel; zeros are drawn, too
WEIGHT = st.integers(-16, 16).map(lambda eighths: eighths / 8)
WEIGHTED = st.lists(st.tuples(st.integers(0, ROWS - 1), WEIGHT), max_size=4)
BAGS = st.lists(WEIGHTED, max_size=6)
POOLING = st.sampled_from(["sum", "mean"])


def bag_of(lists: list[list[tuple[int, float]]], pooling: str) -> Bag:
    offsets = torch.tensor([0, *(len(pairs) for pairs in lists)]).cumsum(0)
    flat = [pair for pairs in lists for pair in pairs]
    return Bag(
        torch.tensor([row for row, _ in flat], dtype=torch.int64),
        offsets,
        pooling,
        torch.tensor([weight for _, weight in flat], dtype=torch.float32),
    )


def batch_of(bag: Bag) -> Batch:
    size = len(bag.offsets) - 1
    return Batch(torch.zeros(size), torch.zeros(size, 0), torch.zeros(size, 1, dtype=torch.int64), {0: bag})


def slow(weight: Tensor, lists: list[list[tuple[int, float]]], pooling: str) -> Tensor:
    """sum w v, over sum w for a mean; zero where that is zero or the bag is empty."""
    vectors = [torch.zeros(0, weight.shape[1])]
    for pairs in lists:
        total = sum((w * weight[row] for row, w in pairs), torch.zeros(weight.shape[1]))
        whole = sum(w for _, w in pairs)
        if pooling == "mean":
            total = total / whole if whole != 0 else total * 0
        vectors.append(total.unsqueeze(0))
    return torch.cat(vectors)


@given(BAGS, POOLING)
@settings(deadline=None, max_examples=60)
def test_weighted_pooling_and_its_gradients_equal_one_bag_at_a_time(
    lists: list[list[tuple[int, float]]], pooling: str
) -> None:
    start = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(0))
    store = RowStore(start.clone(), RowOptimizer("sgd"))
    lookup = look_up(batch_of(bag_of(lists, pooling)), torch.tensor([0]))
    _, weights, repeats = store.gather(lookup.rows)
    pooled = lookup.pool(repeat(weights, repeats)).squeeze(1)
    parameter = start.clone().requires_grad_()
    expected = slow(parameter, lists, pooling)
    torch.testing.assert_close(pooled, expected)
    if not any(lists):
        return
    factors = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (pooled * factors).sum().backward()
    (expected * factors).sum().backward()
    assert parameter.grad is not None
    store.update(0.5)
    torch.testing.assert_close(store.weight, start - 0.5 * parameter.grad)


@given(plans(single_rows=True), st.data())
@settings(deadline=None, max_examples=25)
def test_packed_tables_weigh_bags_alike_with_and_without_the_library(plan: Plan, data: st.DataObject) -> None:
    packed, _ = packed_with_rows(plan, 0)
    ids = st.integers(0, plan.fields[0].rows - 1)
    lists = data.draw(st.lists(st.lists(st.tuples(ids, WEIGHT), max_size=3), min_size=1, max_size=4))
    pooling = data.draw(POOLING)
    bag = bag_of(lists, pooling)
    zeros = torch.zeros(len(lists), len(plan.fields), dtype=torch.int64)
    batch = Batch(torch.zeros(len(lists)), torch.zeros(len(lists), 0), zeros, {0: bag})
    table = PackedTable(packed)
    found = table(batch)
    torch.testing.assert_close(found[:, 0], slow(table.decode(0), lists, pooling), rtol=1e-4, atol=1e-3)
    with pytest.MonkeyPatch.context() as patch:
        for module in (look_up_packed, gather_packed):
            patch.setattr(module, "native_for", lambda *tensors: None)
        torch.testing.assert_close(table(batch), found, rtol=1e-4, atol=1e-3)


def test_a_mean_divides_by_the_sum_of_weights_and_nothing_sums_to_zero() -> None:
    bag = bag_of([[(1, 3.0), (2, 1.0)], [(1, 0.0), (2, 0.0)], []], "mean")
    assert bag.shares().tolist() == [0.75, 0.25, 0.0, 0.0]
    vectors = look_up(batch_of(bag), torch.tensor([0])).pool(torch.tensor([[4.0], [8.0], [1.0], [1.0]]))
    assert vectors.flatten().tolist() == [5.0, 0.0, 0.0]


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_weights_of_one_change_nothing(pooling: str) -> None:
    ones = bag_of([[(1, 1.0), (2, 1.0), (2, 1.0)], [], [(0, 1.0)]], pooling)
    assert torch.equal(ones.shares(), Bag(ones.values, ones.offsets, pooling).shares())


@given(BAGS.filter(bool), st.integers(0, 99), POOLING)
@settings(deadline=None, max_examples=40)
def test_weights_move_with_their_ids_through_slices_and_shuffles(
    lists: list[list[tuple[int, float]]], seed: int, pooling: str
) -> None:
    bag, size = bag_of(lists, pooling), len(lists)
    held = {0: BagRows(bag.values.int(), bag.offsets, pooling, bag.weights)}
    ids = torch.zeros(size, 1, dtype=torch.int32)
    rows = Rows(torch.arange(size).float(), torch.zeros(size, 0), ids, held)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    for chosen_order in (None, order):
        for batch in (
            rows.batch(0, (size + 1) // 2, chosen_order),
            rows.batch(size // 2, size, chosen_order),
        ):
            found = batch.to(torch.device("cpu")).bags[0]
            assert found.weights is not None
            expected = bag_of([lists[int(label)] for label in batch.labels], pooling)
            for name in ("values", "offsets", "weights"):
                assert torch.equal(getattr(found, name), getattr(expected, name))
