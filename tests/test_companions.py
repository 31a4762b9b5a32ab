from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from click_logs import ANCHORS, write_csv
from torch import Tensor

from autoembed.companions import FOLDER, Companion, Split, companion_of
from autoembed.data.config import Categorical, DataConfig
from autoembed.data.config import Split as SplitRule
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData
from autoembed.methods.base import TableSpec
from autoembed.methods.lma import Lma
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.signatures import Signatures
from autoembed.stats import Stats, stats_of
from autoembed.training import TrainingConfig, train

CALLS: list[str] = []


@dataclass(frozen=True)
class Doubled(Companion):
    """Twice the number of every row."""

    add: int = 0
    name: ClassVar[str] = "doubled"
    version: ClassVar[int] = 1

    def compute(self, data: Split, stats: Stats) -> Tensor:
        CALLS.append("doubled")
        return 2 * torch.arange(stats.rows) + self.add


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    words = "abcdefgh"
    rows = [
        {"label": i % 2, "split": split, "word": words[i % 8], "tags": [words[i % 3], words[i % 5]]}
        for i in range(80)
        for split in ("train", "valid", "test")
    ]
    path = write_csv(tmp_path / "log.csv", [*rows, *ANCHORS])
    config = DataConfig(
        path=str(path),
        categorical={"word": None, "tags": Categorical(bag=True)},
        split=SplitRule(column="split"),
    )
    CALLS.clear()
    return prepare(config, tmp_path / "out")


def test_an_answer_is_computed_once_and_kept_beside_the_data(data: PreparedData) -> None:
    stats = stats_of(data)
    first = companion_of(Doubled(), data, stats)
    again = companion_of(Doubled(), PreparedData(data.path, data.manifest, 0), stats)
    assert torch.equal(first, again) and first.tolist() == list(range(0, 2 * stats.rows, 2))
    assert len(CALLS) == 1
    assert len(list((data.path / FOLDER).iterdir())) == 1


def test_other_settings_and_other_data_are_asked_anew(data: PreparedData) -> None:
    stats = stats_of(data)
    companion_of(Doubled(), data, stats)
    assert companion_of(Doubled(add=5), data, stats)[0] == 5
    data.fingerprint = "of other data"
    companion_of(Doubled(), data, stats)
    assert len(CALLS) == 3


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY cut off", None])
def test_a_damaged_file_is_replaced(data: PreparedData, content: bytes | None) -> None:
    stats = stats_of(data)
    right = companion_of(Doubled(), data, stats)
    (path,) = (data.path / FOLDER).iterdir()
    if content is None:
        np.save(path, np.zeros(stats.rows + 1, np.int64))
    else:
        path.write_bytes(content)
    assert torch.equal(companion_of(Doubled(), data, stats), right)
    assert torch.equal(companion_of(Doubled(), data, stats), right)
    assert len(CALLS) == 2


def test_where_nothing_may_be_written_the_answer_is_returned_all_the_same(data: PreparedData) -> None:
    (data.path / FOLDER).write_text("a file in the way")
    stats = stats_of(data)
    assert companion_of(Doubled(), data, stats)[1] == 2


def test_signatures_of_prepared_data_are_read_from_train_alone_and_train_a_model(data: PreparedData) -> None:
    stats = stats_of(data)
    method = Lma(ratio=0.5, least=4)
    trained = train(
        data,
        stats,
        method,
        PROFILES["packed"],
        ModelConfig(name="dnn", dim=4, hidden=[8]),
        TrainingConfig(epochs=1, batch_size=32),
        seed=1,
    )
    assert trained.bytes.total == method.footprint(_spec(stats)).high_bytes
    assert trained.packing_difference < 1e-6
    only_train = Signatures("examples", 1_000_000, 4).compute(_OnlyTrain(data), stats)
    assert torch.equal(companion_of(method.signatures, data, stats), only_train)


class _OnlyTrain:
    """Refuses every other split."""

    def __init__(self, data: PreparedData) -> None:
        self._data = data

    def rows(self, split: str) -> int:
        assert split == "train"
        return self._data.rows(split)

    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None):
        assert split == "train"
        return self._data.batches(split, batch_size, shuffle_seed=shuffle_seed)


def _spec(stats: Stats) -> TableSpec:
    return TableSpec(stats, 4, PROFILES["packed"])
