import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from methods.settings import DIM, ROWS, all_rows, batch, spec

from autoembed.data.batch import Batch
from autoembed.methods.base import TableSpec
from autoembed.methods.lma import Lma, LmaTable
from autoembed.methods.robe import Robe
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, Sharing, directory_bytes, plan_bytes
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.pool_slots import reference as reference_slots
from autoembed_kernels.row_update import RowOptimizer
from autoembed_kernels.signature_pool import reference as signed_slots


def table(method: Lma, optimizer: str = "sgd", at: TableSpec | None = None) -> LmaTable:
    made = method.table(at or spec(), torch.Generator().manual_seed(0), RowOptimizer(optimizer))
    assert isinstance(made, LmaTable)
    return made


def two_fields(signatures: list[int], method: Lma) -> TableSpec:
    """Fields of 5 rows, rows 1 and 2 of which are frequent; signatures of their global rows 0 to 9."""
    fields = tuple(FieldStats(name, np.array([3, 50, 20, 2, 1])) for name in "ab")
    words = {method.signatures: torch.tensor(signatures)}
    return TableSpec(Stats(fields), 64, PROFILES["packed"], companions=words)


METHOD = Lma(ratio=1.0, keys=2, least=8)
SIGNATURES = [0, 0x1234, -7, 0, 0, 0, 0x1234, 0x1235, 0, 0]


def vector(made: LmaTable, begins: list[int]) -> torch.Tensor:
    return made.pool.weight.flatten()[begins]


def read(made: LmaTable, row: int, field: int) -> torch.Tensor:
    return PackedTable(made.pack()).decode(field)[row]


def test_frequent_ids_read_where_their_signature_says_and_the_others_by_their_number() -> None:
    made = table(METHOD, at=two_fields(SIGNATURES, METHOD))
    for field in (0, 1):
        for row in (1, 2):
            word = SIGNATURES[5 * field + row] % 2**64
            assert torch.equal(read(made, row, field), vector(made, signed_slots(word, 2, 64, 1, 640)))
        for row in (0, 3, 4):
            assert torch.equal(read(made, row, field), vector(made, reference_slots(row, field, 64, 1, 640)))


def test_equal_signatures_share_all_values_and_close_ones_those_whose_keys_agree() -> None:
    made = table(METHOD, at=two_fields(SIGNATURES, METHOD))
    assert torch.equal(read(made, 1, 0), read(made, 1, 1))
    same = int((read(made, 1, 0) == read(made, 2, 1)).sum())
    # one key of 16 differs, 2 are asked for: 7/8 of 64 values, within four standard deviations
    assert abs(same - 56) < 4 * (64 * 7 / 64) ** 0.5
    assert same < 64


def test_signatures_are_stored_for_frequent_ids_alone_at_eight_bytes_each() -> None:
    made = table(METHOD, at=two_fields(SIGNATURES, METHOD))
    sharings = [s.sharing for _, s in made.plan().segments()]
    assert sharings == 2 * [Sharing.POOL, Sharing.SIGNATURE_POOL, Sharing.POOL]
    plain = replace(METHOD, least=1000).plan(made.spec)
    # four segments more: sharing, precision, where each ends, four bytes of stored rows; chunks of all six
    added = directory_bytes(made.plan()) - directory_bytes(plain)
    assert added == 4 * (2 + 1 + 4) + 6
    assert plan_bytes(made.plan()).index - plan_bytes(plain).index == 4 * 8 + added
    assert plan_bytes(made.plan()).payload == plan_bytes(plain).payload == 4 * 640


def test_without_frequent_ids_it_is_robe() -> None:
    method = Lma(ratio=0.1, least=1_000_000, block=4)
    assert method.plan(spec()) == Robe(ratio=0.1, block=4).plan(spec())
    robe = Robe(ratio=0.1, block=4).table(spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    assert torch.equal(table(method, at=with_signatures(method))(all_rows()), robe(all_rows()))


def with_signatures(method: Lma) -> TableSpec:
    """Any signatures for the tiny data of the suite."""
    words = torch.randint(-(2**62), 2**62, (sum(ROWS),), generator=torch.Generator().manual_seed(4))
    return replace(spec(), companions={method.signatures: words})


def test_a_dimension_that_blocks_do_not_divide_reads_part_of_the_last_one() -> None:
    method = Lma(ratio=0.1, block=4)
    made = table(method, at=replace(with_signatures(method), dim=7))
    example = all_rows()
    assert torch.equal(PackedTable(made.pack())(example), made(example))


def test_training_holds_the_pool_the_signatures_and_the_places_of_segments() -> None:
    method = Lma(ratio=0.1)
    made = table(method, "adagrad", with_signatures(method))
    slots = made.segment.stored_rows
    signed = sum(s.rows for _, s in made.plan().segments() if s.sharing is Sharing.SIGNATURE_POOL)
    segments = len(list(made.plan().segments()))
    # two numbers a value; per segment four of 8 bytes, two flags, and the masks of DIM blocks
    assert made.training_bytes == 2 * 4 * slots + 8 * signed + segments * (4 * 8 + 2 + 8 * DIM)


def test_signatures_of_rare_ids_are_held_by_nobody_once_the_table_is_built() -> None:
    at = two_fields(SIGNATURES, METHOD)
    given = weakref.ref(at.companions[METHOD.signatures])
    made = table(METHOD, at=at)
    del at
    assert given() is None and not made.spec.companions
    assert made.address.segment_index.numel() == 8 * 4


def test_gradients_of_ids_that_share_a_value_are_summed() -> None:
    made = table(METHOD, at=two_fields(SIGNATURES, METHOD))
    before = made.pool.weight.clone().flatten()
    made(Batch(torch.zeros(1), torch.zeros(1, 0), torch.tensor([[1, 1]]), {})).sum().backward()
    made.update(0.5)
    expected = torch.zeros(640)
    for begin in signed_slots(0x1234, 2, 64, 1, 640):
        expected[begin] += 2.0
    torch.testing.assert_close((before - made.pool.weight.flatten()) / 0.5, expected, atol=1e-5, rtol=0)


def test_a_table_without_signatures_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lma needs Signatures.*companion_of"):
        table(Lma(), at=replace(spec(), companions={}))


def test_a_batch_without_examples_reads_nothing() -> None:
    method = Lma(ratio=0.1)
    made = table(method, at=with_signatures(method))
    empty = batch(0, seed=0)
    assert made(empty).shape == PackedTable(made.pack())(empty).shape == (0, 4, DIM)
