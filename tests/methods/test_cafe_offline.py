import numpy as np
import torch
from methods.settings import batch, spec

from autoembed.methods.base import TableSpec
from autoembed.methods.cafe_offline import CafeOffline
from autoembed.plan import PROFILES, Sharing
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.row_update import RowOptimizer


def two_fields() -> TableSpec:
    """Field a has the frequent ids, b the many rare ones, c is small."""
    counts = ([0, *range(2000, 1000, -1)], [0, *([3] * 4000)], [5, 4, 3])
    fields = (FieldStats(n, np.array(c, dtype=np.int64)) for n, c in zip("abc", counts, strict=True))
    return TableSpec(Stats(tuple(fields)), 16, PROFILES["packed"], initial_std=0.1)


def test_the_split_of_the_worked_example() -> None:
    at = two_fields()
    plan = CafeOffline(ratio=0.1, hashed=0.5).table(at, torch.Generator(), RowOptimizer("sgd")).plan()
    a, b, c = ([(s.start, s.stop, s.sharing, s.stored_rows) for s in field.segments] for field in plan.fields)
    # 5002 rows are in large fields; ceil(0.05 * 5002) = 251 rows of their own, two of them rows 0
    assert a == [(0, 250, Sharing.OWN, 250), (250, 1001, Sharing.HASHED, 38)]  # ceil(0.05 * 751)
    assert b == [(0, 1, Sharing.OWN, 1), (1, 4001, Sharing.HASHED, 200)]
    assert c == [(0, 3, Sharing.OWN, 3)]


def test_the_stored_rows_are_the_ratio_of_all_rows_but_for_rounding() -> None:
    at = two_fields()
    for ratio in (0.01, 0.1, 0.4):
        for hashed in (0.1, 0.5, 0.9):
            table = CafeOffline(ratio=ratio, hashed=hashed).table(at, torch.Generator(), RowOptimizer("sgd"))
            stored = sum(s.stored_rows for f in table.plan().fields[:2] for s in f.segments)
            assert (ratio * (1 - ratio * hashed * (1 - hashed)) * 5002 - 1) <= stored <= ratio * 5002 + 3


def test_hot_ids_train_alone_and_cold_ids_of_one_bucket_together() -> None:
    method = CafeOffline(ratio=0.3, hashed=0.5, small_rows=100)
    table = method.table(spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd"))
    hot, cold = table.plan().fields[0].segments
    assert hot.sharing is Sharing.OWN and cold.sharing is Sharing.HASHED and 1 < hot.stop < 60
    buckets = row_hash(torch.arange(cold.start, cold.stop), 0, cold.stored_rows)
    first, second = (cold.start + (buckets == buckets[0]).nonzero().flatten()[:2]).tolist()
    example = batch(4, seed=0)
    example.ids[:, 0] = torch.tensor([1, 2, first, second])
    read = table(example)[:, 0]
    assert torch.equal(read[2], read[3]) and not torch.equal(read[0], read[1])
    before = read.detach().clone()
    read.sum().backward()
    table.update(0.1)
    moved = before - table(example)[:, 0].detach()
    torch.testing.assert_close(moved, torch.tensor([0.1, 0.1, 0.2, 0.2]).unsqueeze(1).expand(4, 8))


def test_training_holds_the_stored_rows_only() -> None:
    table = CafeOffline(ratio=0.1).table(two_fields(), torch.Generator(), RowOptimizer("rowwise_adagrad"))
    stored = sum(s.stored_rows for f in table.plan().fields for s in f.segments)
    assert stored * (4 * 16 + 4) <= table.training_bytes < stored * (4 * 16 + 4) + 1000
