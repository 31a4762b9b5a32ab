"""Look-ups, pooling and the row store against slow references."""

import pytest
import torch
from torch import Tensor

from autoembed.data.batch import Bag, Batch
from autoembed.lookup import look_up
from autoembed.tables import RowStore
from autoembed_kernels.dedupe import repeat
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer

ROWS = (4, 6, 5)
FIRST_ROWS = torch.tensor([0, 4, 10])


def _weight(dim: int = 3) -> Tensor:
    return torch.randn(sum(ROWS), dim, generator=torch.Generator().manual_seed(0))


def _batch(bag_fields: dict[int, list[list[int]]], pooling: str) -> Batch:
    """Four examples; the fields in `bag_fields` hold these lists, the others one id."""
    ids = torch.tensor([[0, 5, 1], [3, 5, 1], [3, 0, 4], [0, 1, 1]])
    bags = {}
    for field, lists in bag_fields.items():
        ids[:, field] = 0
        offsets = torch.tensor([0, *(len(values) for values in lists)]).cumsum(0)
        flat = torch.tensor([value for values in lists for value in values], dtype=torch.int64)
        bags[field] = Bag(flat, offsets, pooling)
    return Batch(torch.zeros(4), torch.zeros(4, 0), ids, bags)


def _slow(batch: Batch, weight: Tensor) -> Tensor:
    """The vector of every field of every example, one at a time."""
    examples = []
    for example in range(len(batch)):
        vectors = []
        for field in range(len(ROWS)):
            if field in batch.bags:
                bag = batch.bags[field]
                ids = bag.values[bag.offsets[example] : bag.offsets[example + 1]]
                held = weight[ids + FIRST_ROWS[field]]
                vector = held.sum(0)
                vectors.append(vector / max(len(ids), 1) if bag.pooling == "mean" else vector)
            else:
                vectors.append(weight[batch.ids[example, field] + FIRST_ROWS[field]])
        examples.append(torch.stack(vectors))
    return torch.stack(examples)


BAGS: list[dict[int, list[list[int]]]] = [
    {},
    {1: [[5, 5], [], [0, 1, 2], [3]]},
    {0: [[], [], [], []]},
    {0: [[1], [0, 3], [], [2]], 2: [[4, 4, 1], [], [0], [1, 1]]},
]


@pytest.mark.parametrize("pooling", ["sum", "mean"])
@pytest.mark.parametrize("bag_fields", BAGS)
def test_look_ups_and_gradients_equal_one_example_at_a_time(
    bag_fields: dict[int, list[list[int]]], pooling: str
) -> None:
    batch = _batch(bag_fields, pooling)
    store = RowStore(_weight(), RowOptimizer("sgd"))
    lookup = look_up(batch, FIRST_ROWS)
    rows, weights, repeats = store.gather(lookup.rows)
    pooled = lookup.pool(repeat(weights, repeats))
    parameter = _weight().requires_grad_()
    expected = _slow(batch, parameter)
    torch.testing.assert_close(pooled, expected)

    factors = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (pooled * factors).sum().backward()
    (expected * factors).sum().backward()
    assert parameter.grad is not None
    torch.testing.assert_close(weights.grad, parameter.grad[rows])
    store.update(0.5)
    torch.testing.assert_close(store.weight, _weight() - 0.5 * parameter.grad)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_moves_the_rows_looked_up_and_no_other(name: str) -> None:
    store = RowStore(_weight(), RowOptimizer(name, l2=0.1))
    before = store.weight.clone()
    rows, weights, repeats = store.gather(torch.tensor([7, 2, 7]))
    repeat(weights, repeats).sum().backward()
    store.update(0.1)
    moved = (store.weight != before).any(dim=1).nonzero().squeeze(1)
    assert moved.tolist() == rows.tolist() == [2, 7]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_looking_up_trains_as_gathering_and_repeating_does(name: str) -> None:
    read = torch.tensor([7, 2, 7, 0, 7])
    factors = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    stores = [RowStore(_weight(), RowOptimizer(name, l2=0.1)) for _ in range(2)]
    for _ in range(3):
        looked_up = stores[0].look_up(read)
        _, weights, repeats = stores[1].gather(read)
        repeated = repeat(weights, repeats)
        assert torch.equal(looked_up, repeated)
        for vectors in (looked_up, repeated):
            (vectors.square() * factors).sum().backward()
        for store in stores:
            store.update(0.1)
    torch.testing.assert_close(stores[0].weight, stores[1].weight)
    for name in stores[0].optimizer.state_names:
        torch.testing.assert_close(stores[0].get_buffer(name), stores[1].get_buffer(name))


def test_reading_without_gradients_leaves_nothing_to_update() -> None:
    store = RowStore(_weight(), RowOptimizer("adam"))
    before = store.weight.clone()
    with torch.no_grad():
        store.gather(torch.tensor([1, 2]))
        store.look_up(torch.tensor([1, 2]))
    store.update(0.1)
    assert torch.equal(store.weight, before)


def test_rows_read_but_not_used_are_not_updated() -> None:
    store = RowStore(_weight(), RowOptimizer("adam", l2=1.0))
    before = store.weight.clone()
    store.gather(torch.tensor([1, 2]))
    store.update(0.1)
    assert torch.equal(store.weight, before)


def test_only_weights_are_remembered_and_all_state_is_counted() -> None:
    store = RowStore(_weight(dim=4), RowOptimizer("adam"))
    assert list(store.state_dict()) == ["weight"]
    assert list(store.parameters()) == [], "no dense optimizer may ever see the rows"
    # weight and two moments of 4 floats, and a count, for each row
    assert store.nbytes == sum(ROWS) * (3 * 4 * 4 + 4)
