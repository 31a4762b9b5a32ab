import numpy as np
import pytest
import torch
from methods.settings import batch, spec

from autoembed.lookup import look_up
from autoembed.methods.base import TableSpec
from autoembed.methods.cafe import Cafe, CafeTable
from autoembed.plan import PROFILES, Sharing
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.row_update import RowOptimizer


def table_of(method: Cafe, optimizer: str = "sgd") -> CafeTable:
    return method.table(spec(), torch.Generator().manual_seed(0), RowOptimizer(optimizer))


def step(table: CafeTable, rows: list[int], weights: list[float], number: int, rate: float = 0.1) -> None:
    """Read rows of the first field, each with this gradient in every dimension, and train."""
    example = batch(len(rows), seed=0)
    example.ids[:] = 0
    example.ids[:, 0] = torch.tensor(rows)
    (table(example)[:, 0] * torch.tensor(weights).unsqueeze(1)).sum().backward()
    table.update(rate)
    table.after_step(number)


def read(table: CafeTable, row: int) -> torch.Tensor:
    example = batch(1, seed=0)
    example.ids[:] = 0
    example.ids[0, 0] = row
    with torch.no_grad():
        return table(example)[0, 0].clone()


def test_the_sizes_of_the_authors_example() -> None:
    rows = 33_762_577
    counts = np.broadcast_to(np.int64(1), rows)
    at = TableSpec(Stats((FieldStats("a", counts),)), 16, PROFILES["packed"])
    method = Cafe(ratio=0.1, hashed=0.5)
    assert method.hot_rows(at) == 964_645
    assert method.shared_rows(at) == [1_688_129]  # ceil(0.05 * 33,762,577)


def test_an_id_with_large_gradients_gets_a_row_that_starts_from_the_shared_one_and_then_trains_alone() -> (
    None
):
    method = Cafe(ratio=0.3, interval=1, small_rows=100)
    table = table_of(method, "adagrad")
    shared = method.shared_rows(spec())[0]
    buckets = row_hash(torch.arange(200), 0, shared)
    first, second = (buckets == buckets[3]).nonzero().flatten()[:2].tolist()
    assert torch.equal(read(table, first), read(table, second))
    step(table, [first], [1.0], 1)
    places = table.sketch.place_of(torch.tensor([first, second]))
    assert places[0] >= 0 and places[1] < 0
    own, bucket = read(table, first), table.shared.weight[buckets[first]].clone()
    assert torch.equal(own, bucket) and own.any() and torch.equal(read(table, second), bucket)
    state = table.own_square_sum[places[:1]]
    assert torch.equal(state[0], table.shared.square_sum[buckets[first]]) and state.any()
    step(table, [first], [1.0], 2)
    assert not torch.equal(read(table, first), own) and torch.equal(read(table, second), bucket)


def test_an_id_that_cools_down_reads_the_shared_row_again() -> None:
    table = table_of(Cafe(ratio=0.05, hashed=0.5, interval=1, decay=0.5, small_rows=100))
    places = table.sketch.places
    old, new = list(range(places)), list(range(100, 100 + 4 * places))
    for number in range(1, 5):
        step(table, old, [1.0] * places, number)
    was_hot = (table.sketch.place_of(torch.tensor(old)) >= 0).nonzero().flatten().tolist()
    assert was_hot
    for number in range(5, 25):
        step(table, new, [1.0] * len(new), number)
    assert (table.sketch.place_of(torch.tensor(old)) < 0).all()
    bucket = table._shared_row(torch.tensor([old[was_hot[0]]]))
    assert torch.equal(read(table, old[was_hot[0]]), table.shared.weight[bucket[0]])


def test_repeats_of_a_row_are_trained_by_the_sum_of_their_gradients_hot_or_not() -> None:
    for warm in (0, 1):
        table = table_of(Cafe(ratio=0.3, interval=1, small_rows=100))
        for number in range(1, 1 + warm):
            step(table, [7], [1.0], number, rate=0.0)
        assert (int(table.sketch.place_of(torch.tensor([7]))) >= 0) == bool(warm)
        before = read(table, 7)
        step(table, [7, 7, 7], [1.0, 2.0, 0.5], 1 + warm)
        torch.testing.assert_close(before - read(table, 7), torch.full((8,), 0.35))


def test_importance_is_the_share_of_a_step_s_gradient_norms() -> None:
    table = table_of(Cafe(ratio=0.3, interval=1000, small_rows=100))
    step(table, [5, 9, 5], [1.0, 6.0, 1.0], 1)
    slots = table.sketch.find(torch.tensor([5, 9]))
    torch.testing.assert_close(table.sketch.importance[slots], torch.tensor([0.25, 0.75]))


def test_the_exported_marks_are_the_hot_ids_and_small_fields_are_whole() -> None:
    table = table_of(Cafe(ratio=0.3, interval=1, small_rows=100))
    assert table.plan().fields[0].segments[0].sharing is Sharing.HASHED
    step(table, [5, 9], [1.0, 6.0], 1)
    segments = [field.segments[0] for field in table.plan().fields]
    shared = table.method.shared_rows(spec())
    assert segments[0].sharing is Sharing.MARKED_OR_HASHED and segments[0].stored_rows == shared[0] + 2
    assert all(s.sharing is Sharing.OWN and s.stored_rows == s.rows for s in segments[1:])


def test_training_holds_the_stored_rows_their_state_and_48_bytes_of_sketch_per_hot_row() -> None:
    method = Cafe(ratio=0.3, small_rows=10)
    table = table_of(method, "rowwise_adagrad")
    rows = sum(method.shared_rows(spec())) + method.hot_rows(spec())
    expected = rows * (4 * 8 + 4) + 48 * method.hot_rows(spec())
    assert expected <= table.training_bytes < expected + 200
    assert len(look_up(batch(3, 0), table.first_rows).rows) > 0


def test_more_rows_than_the_sketch_can_name_are_refused() -> None:
    counts = np.broadcast_to(np.int64(1), (2**30,))  # takes no memory
    many = Stats(tuple(FieldStats(f"field_{number}", counts) for number in range(2)))
    with pytest.raises(ValueError, match=r"2,147,483,648 rows together; raise min_count"):
        Cafe().footprint(TableSpec(many, 8, PROFILES["packed"]))
