import torch
from methods.settings import batch, spec

from autoembed.methods.hashing import Hashing
from autoembed.plan import Sharing
from autoembed_kernels.row_hash import row_hash
from autoembed_kernels.row_update import RowOptimizer


def test_small_fields_and_row_0_keep_their_own_rows() -> None:
    table = Hashing(ratio=0.25, small_rows=60).table(
        spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd")
    )
    segments = [field.segments for field in table.plan().fields]
    assert [(s.start, s.stop, s.sharing, s.stored_rows) for s in segments[0]] == [
        (0, 1, Sharing.OWN, 1),
        (1, 200, Sharing.HASHED, 50),  # ceil(199 / 4)
    ]
    assert [len(s) for s in segments[1:]] == [1, 1, 1]
    assert all(s[0].sharing is Sharing.OWN for s in segments[1:])


def test_ids_of_one_bucket_read_one_row_and_train_it_together() -> None:
    table = Hashing(ratio=0.1, small_rows=10).table(
        spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd")
    )
    buckets = row_hash(torch.arange(1, 200), 0, 20)
    first, second = (1 + (buckets == 3).nonzero().flatten()[:2]).tolist()
    example = batch(2, seed=0)
    example.ids[:, 0] = torch.tensor([first, second])
    vectors = table(example)[:, 0]
    assert torch.equal(vectors[0], vectors[1])
    before = vectors[0].detach().clone()
    vectors.sum().backward()
    table.update(0.1)
    torch.testing.assert_close(table(example)[1, 0], before - 0.2)


def test_a_ratio_of_one_stores_every_row_as_its_own() -> None:
    table = Hashing(ratio=1.0, small_rows=1).table(
        spec(), torch.Generator().manual_seed(0), RowOptimizer("sgd")
    )
    assert {s.sharing for field in table.plan().fields for s in field.segments} == {Sharing.OWN}
