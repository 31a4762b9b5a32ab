"""Methods that promise to train small never make a dense float32 table, not even for a moment."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoembed.data.batch import Batch
from autoembed.methods import METHODS, make_method
from autoembed.methods.base import TableSpec
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_update import RowOptimizer

ROWS, DIM = 150_000, 16
DENSE = 4 * DIM * ROWS
# half of the rows are never read: what fills these with zeros must do it in pieces, too
COUNTS = np.concatenate([np.arange(ROWS // 2, 0, -1), np.zeros(ROWS - ROWS // 2, dtype=np.int64)])

SMALL: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("low_precision", {}),
    ("low_precision", {"format": "int8"}),
    ("cached_low_precision", {"cache": 0.01}),
    ("cached_low_precision", {"cache": 0.01, "placement": "lfu", "bits": 4}),
    ("cached_low_precision", {"cache": 0.01, "placement": "rank", "bits": 4}),
    ("alpt", {}),
    ("hashing", {"ratio": 0.1}),
    ("frequency_cut", {"keep": 0.1}),
    ("cafe_offline", {"ratio": 0.1}),
    ("cafe", {"ratio": 0.1, "interval": 1}),
    ("quotient_remainder", {"collisions": 8}),
    ("robe", {"ratio": 0.1}),
    ("lma", {"ratio": 0.1, "least": ROWS}),
    ("fiited", {"keep": 0.35, "interval": 1}),
    ("fiited", {"keep": 0.1, "interval": 1}),
    ("fiited", {"keep": 0.01, "interval": 1}),
    ("fiited", {"keep": 0.01, "interval": 1, "by_field": 1}),
    ("mixed_dimension", {"alpha": 0.0, "keep": 0.3, "blocks": "group"}),
)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the bytes of the largest storage that any operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.nbytes = max(self.nbytes, leaf.untyped_storage().nbytes())
        return result


def largest_bytes(name: str, parameters: Mapping[str, Any]) -> int:
    """Of the tensors made while a table is built and trained for two steps."""
    stats = Stats((FieldStats("user", COUNTS),))
    method = make_method(name, parameters)
    asked = {companion: torch.zeros(ROWS, dtype=torch.int64) for companion in method.companions()}
    spec = TableSpec(stats, DIM, PROFILES["packed-row-scale"], 0.1, asked)
    ids = torch.randint(0, ROWS // 2, (64, 1), generator=torch.Generator().manual_seed(1))
    example = Batch(torch.zeros(64), torch.zeros(64, 0), ids, {})
    watched = LargestTensor()
    with watched:
        table = method.table(spec, torch.Generator().manual_seed(2), RowOptimizer("sgd"))
        for step in (1, 2):
            table(example).square().sum().backward()
            table.update(0.1)
            table.after_step(step)
    return watched.nbytes


def test_every_method_that_trains_small_is_watched() -> None:
    assert {name for name, _ in SMALL} == {name for name, method in METHODS.items() if method.trains_small}


@pytest.mark.parametrize(("name", "parameters"), SMALL, ids=str)
def test_no_tensor_is_ever_as_large_as_the_dense_table(name: str, parameters: Mapping[str, Any]) -> None:
    assert 0 < largest_bytes(name, parameters) < DENSE


def test_full_precision_makes_one() -> None:
    assert largest_bytes("full_precision", {}) >= DENSE
