"""Soft labels stay with their rows, and mean the distillation loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click_logs import ANCHORS, write_parquet
from tiny_data import tiny_data
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from autoembed.data.batch import Batch
from autoembed.data.config import DataConfig, Split
from autoembed.data.prepare import prepare
from autoembed.data.prepared import open_prepared
from autoembed.joint.teacher import taught, teacher_logits


@pytest.fixture(scope="module")
def prepared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    rows = [{"label": i % 2, "split": "train", "id": i % 40, "x": i / 300} for i in range(300)]
    rows += [row | {"id": 0, "x": 0.0} for row in ANCHORS if row["split"] != "train"]
    config = DataConfig(
        path=str(write_parquet(folder / "log.parquet", rows)),
        dense={"x": "none"},
        categorical={"id": None},
        split=Split(column="split"),
    )
    return prepare(config, folder / "out").path


class Sums(nn.Module):
    """A network whose logit is a number that tells the example."""

    def forward(self, dense: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        return dense.sum(1) + embeddings.sum((1, 2))


class Ids(nn.Module):
    def forward(self, batch: Batch) -> torch.Tensor:
        return batch.ids.float().unsqueeze(2) / 50


def expected(batch: Batch) -> torch.Tensor:
    return Sums()(batch.dense, Ids()(batch)).double().sigmoid().float()


def test_soft_labels_follow_their_rows_through_shuffled_batches():
    data, _ = tiny_data(rows=500)
    logits = teacher_logits(data, Sums(), Ids(), torch.device("cpu"))
    assert logits.shape == (500,) and logits.dtype == np.float32
    for batch in taught(data, logits, 1.0).batches("train", 64, shuffle_seed=5):
        torch.testing.assert_close(batch.labels, expected(batch))


@pytest.mark.parametrize("memory_limit_bytes", [2 << 30, 0])
@pytest.mark.parametrize("loaded_before", [False, True])
def test_prepared_data_keeps_them_aligned_in_memory_and_from_maps(
    prepared_path, memory_limit_bytes, loaded_before
):
    data = open_prepared(prepared_path, memory_limit_bytes=memory_limit_bytes)
    if loaded_before:
        next(iter(data.batches("train", 8)))
    logits = teacher_logits(data, Sums(), Ids(), torch.device("cpu"))
    lesson = taught(data, logits, 1.0)
    for batch in lesson.batches("train", 37, shuffle_seed=5):
        torch.testing.assert_close(batch.labels, expected(batch))
    for plain, other in zip(data.batches("valid", 50), lesson.batches("valid", 50), strict=True):
        assert torch.equal(plain.labels, other.labels)
    kept = torch.cat([batch.labels for batch in data.batches("train", 50)])
    assert np.array_equal(kept.numpy(), data.labels("train"))


def test_prepared_data_refuses_labels_of_another_length(prepared_path):
    with pytest.raises(ValueError, match="one per row of train"):
        open_prepared(prepared_path).relabelled(np.zeros(3, dtype=np.float32))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_one_soft_label_is_the_distillation_loss(weight):
    data, _ = tiny_data(rows=200)
    logits = np.random.default_rng(0).normal(size=200).astype(np.float32)
    student = torch.randn(200, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (batch,) = taught(data, logits, weight).batches("train", 200)
    hard = torch.from_numpy(data.labels("train"))
    teacher = torch.from_numpy(logits).sigmoid()
    loss = binary_cross_entropy_with_logits
    together = weight * loss(student, teacher) + (1 - weight) * loss(student, hard)
    torch.testing.assert_close(loss(student, batch.labels), together)
