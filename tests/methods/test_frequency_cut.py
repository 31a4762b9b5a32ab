import numpy as np
import pytest
import torch
from methods.settings import batch, spec
from methods.settings import stats as tiny_stats

from autoembed.data.batch import Batch
from autoembed.methods.base import TableSpec
from autoembed.methods.frequency_cut import FrequencyCut, most_frequent_rows
from autoembed.methods.stored_precision import STEP_OF_ZEROS, first_step
from autoembed.plan import PROFILES, Sharing
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.lsq import Grid
from autoembed_kernels.row_update import RowOptimizer


def two_fields() -> Stats:
    counts = ([0, 9, 5, 1, 1], [3, 7, 1])
    return Stats(
        tuple(FieldStats(name, np.array(c, dtype=np.int64)) for name, c in zip("ab", counts, strict=True))
    )


def test_kept_rows_of_the_worked_example() -> None:
    # both rows 0, then a1 (9), b1 (7), a2 (5), and of the singletons b2 first: it is earlier in its field
    kept = [most_frequent_rows(two_fields(), share / 8) for share in range(1, 9)]
    assert kept == [(1, 1), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (5, 3)]


def test_cut_ids_read_and_train_the_out_of_vocabulary_row() -> None:
    method = FrequencyCut(keep=0.1, bits=32)
    table = method.table(spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    field = table.plan().fields[0]
    assert field.segments[-1].sharing is Sharing.OOV
    example = batch(1, seed=0)
    example.ids[0, 0] = 199
    vector = table(example)[0, 0]
    example.ids[0, 0] = 0
    assert torch.equal(table(example)[0, 0], vector)
    example.ids[0, 0] = 150
    table(example)[0, 0].sum().backward()
    table.update(0.1)
    example.ids[0, 0] = 0
    torch.testing.assert_close(table(example)[0, 0], vector - 0.1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 32])
def test_a_field_that_is_cut_whole_learns_its_out_of_vocabulary_row(bits: int) -> None:
    spec = TableSpec(two_fields(), 8, PROFILES["packed"], 0.05)
    table = FrequencyCut(keep=0.01, bits=bits).table(
        spec, torch.Generator().manual_seed(0), RowOptimizer("adam")
    )
    table.train()
    example = Batch(torch.zeros(4), torch.zeros(4, 0), torch.tensor([[1, 0], [2, 1], [3, 2], [0, 0]]), {})
    steps = [torch.optim.Adam(list(table.parameters()), lr=0.02)] if bits < 32 else []
    for _ in range(60):
        table.zero_grad()
        (table(example) - 0.5).square().sum().backward()
        table.update(0.02)
        for optimizer in steps:
            optimizer.step()
    learned = table(example).detach()
    assert torch.equal(learned[0], learned[3])  # all ids of both fields read row 0, which train never does
    assert (learned - 0.5).abs().max() < 0.35


def test_a_first_step_of_rows_of_zeros_moves() -> None:
    assert first_step([torch.zeros(3, 4)], Grid(4)) == STEP_OF_ZEROS > 0


def test_cut_ids_need_no_vocabulary_entry() -> None:
    plan = FrequencyCut(keep=0.1).table(spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd")).plan()
    assert plan.kept_rows == most_frequent_rows(tiny_stats(), 0.1)
    assert sum(plan.kept_rows) == 27  # ceil(0.1 * 264)


def test_training_holds_the_kept_rows_only() -> None:
    sizes = [
        FrequencyCut(keep=keep, bits=32)
        .table(spec(), torch.Generator().manual_seed(0), RowOptimizer("adam"))
        .training_bytes
        for keep in (0.1, 1.0)
    ]
    assert sizes[0] < 0.2 * sizes[1]
