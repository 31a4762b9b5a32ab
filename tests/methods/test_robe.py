import torch
from methods.settings import BAG_FIELD, DIM, ROWS, all_rows, batch, spec

from autoembed.methods.base import TableSpec
from autoembed.methods.robe import Robe, RobeTable
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES
from autoembed_kernels.pool_slots import reference
from autoembed_kernels.row_update import RowOptimizer


def table(method: Robe, optimizer: str = "sgd", at: TableSpec | None = None) -> RobeTable:
    made = method.table(at or spec(), torch.Generator().manual_seed(0), RowOptimizer(optimizer))
    assert isinstance(made, RobeTable)
    return made


def vector(made: RobeTable, row: int, field: int) -> torch.Tensor:
    pool = made.pool.weight.flatten()
    block = made.segment.dim
    starts = reference(row, field, made.blocks, block, len(pool))
    return torch.cat([pool[start : start + block] for start in starts])[: made.spec.dim]


def test_vectors_are_cut_from_the_pool() -> None:
    for block in (1, 4, 8):
        made = table(Robe(ratio=0.1, block=block))
        read = made(all_rows())
        for field in (0, 1, 2):
            for row in (0, ROWS[field] - 1):
                assert torch.equal(read[row, field], vector(made, row, field))


def test_a_dimension_that_blocks_do_not_divide_reads_part_of_the_last_one() -> None:
    at = TableSpec(spec().stats, 7, PROFILES["packed"], initial_std=0.1)
    made = table(Robe(ratio=0.1, block=4), at=at)
    assert made.blocks == 2
    read = made(all_rows())
    assert torch.equal(read[5, 0], vector(made, 5, 0))
    assert torch.equal(PackedTable(made.pack())(all_rows())[5, 0], read[5, 0])


def test_the_pool_is_stored_once_and_has_the_size_asked_for() -> None:
    for ratio in (0.01, 0.1, 1.0):
        made = table(Robe(ratio=ratio, block=8))
        rows = [s.stored_rows for field in made.plan().fields for s in field.segments]
        assert rows == [-(-int(ratio * 1000) * sum(ROWS) // 1000), 0, 0, 0]
        assert made.pack().bytes.payload == 4 * 8 * rows[0]


def test_training_holds_the_pool_only() -> None:
    made = table(Robe(ratio=0.1, block=8), "adagrad")
    assert made.training_bytes == 2 * 4 * 8 * 27  # values and one state of each


def test_gradients_of_all_that_share_a_value_are_summed() -> None:
    made = table(Robe(ratio=0.1))
    before = made.pool.weight.clone()
    example = batch(64, seed=3)
    weight = torch.randn(64, 4, DIM, generator=torch.Generator().manual_seed(1))
    (made(example) * weight).sum().backward()
    made.update(0.5)
    expected = torch.zeros(len(before))
    block, slots = made.segment.dim, len(before)

    def add(row: int, field: int, gradient: torch.Tensor) -> None:
        for z, start in enumerate(reference(row, field, made.blocks, block, slots)):
            expected[start : start + block] += gradient[z * block : (z + 1) * block]

    bag = example.bags[BAG_FIELD]
    for i in range(64):
        for field in range(3):
            add(int(example.ids[i, field]), field, weight[i, field])
        ids = bag.values[bag.offsets[i] : bag.offsets[i + 1]].tolist()
        for one in ids:
            add(one, BAG_FIELD, weight[i, BAG_FIELD] / len(ids))
    torch.testing.assert_close((before - made.pool.weight).flatten() / 0.5, expected, atol=1e-4, rtol=1e-4)


def test_a_batch_without_examples_reads_nothing() -> None:
    made = table(Robe(ratio=0.1))
    empty = batch(0, seed=0)
    assert made(empty).shape == PackedTable(made.pack())(empty).shape == (0, 4, DIM)
