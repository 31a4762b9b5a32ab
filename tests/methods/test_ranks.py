"""Fields whose rows are in no order of frequency: methods work on them, or say that they need ranks."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from methods.settings import all_rows, batch, methods, spec
from methods.test_contract import serving, train

from autoembed.methods import METHODS, describe
from autoembed.methods.base import Method, TableSpec
from autoembed.methods.ranks import needs_ranks
from autoembed.packed import PackedTable
from autoembed.plan import plan_bytes
from autoembed.stats import Stats
from autoembed_kernels.row_update import RowOptimizer

RANKED = [method for method in methods() if needs_ranks(method.ranks, vars(method))]
# chunks that are compared by field need a vocabulary, not its order, and say so: see test_fiited.py
FREE = [m for m in methods() if m not in RANKED and not vars(m).get("by_field")]


def with_rows_in_order(profile: str) -> TableSpec:
    """The suite's fields; the rarer half of the first one's rows is never looked up."""
    at = spec(profile)
    first, *others = at.stats.fields
    read = np.where(np.arange(first.rows) < first.rows // 2, first.counts, 0)
    return replace(at, stats=Stats((replace(first, counts=read), *others)))


def without_order(at: TableSpec) -> TableSpec:
    """The same counts, those of the two large fields shuffled behind row 0."""
    fields = []
    for number, field in enumerate(at.stats.fields):
        order = np.random.default_rng(number).permutation(field.rows - 1) + 1
        counts = np.concatenate([field.counts[:1], field.counts[order]])
        fields.append(replace(field, counts=counts, ranked=False) if field.rows > 10 else field)
    return replace(at, stats=Stats(tuple(fields)))


@pytest.mark.parametrize("method", FREE, ids=str)
def test_methods_without_need_of_ranks_train_pack_and_cost_as_ever(method: Method, tmp_path: Path) -> None:
    profile = serving(method)
    ordered = with_rows_in_order(profile)
    at = without_order(ordered)
    footprint = method.footprint(at)
    assert footprint == method.footprint(ordered), "bytes that depend on the order of rows need ranks"
    table = method.table(at, torch.Generator().manual_seed(3), RowOptimizer("adam"))
    losses = train(table, 10)
    assert losses[-1] < losses[0]
    table.settle()
    packed = table.pack()
    size = packed.save(tmp_path / "tables.safetensors")
    assert size == plan_bytes(table.plan()).total
    assert footprint.low_bytes <= size <= footprint.high_bytes
    reader = PackedTable(packed, at.stats.first_rows)
    with torch.no_grad():
        for example in (all_rows(), batch(64, seed=5)):
            torch.testing.assert_close(reader(example), table(example), atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", RANKED, ids=str)
def test_methods_that_need_ranks_name_field_method_and_what_else_there_is(method: Method) -> None:
    at = without_order(with_rows_in_order(serving(method)))
    for ask in (
        lambda: method.footprint(at),
        lambda: method.table(at, torch.Generator(), RowOptimizer("adam")),
    ):
        with pytest.raises(ValueError, match="needs rows in order of frequency") as error:
            ask()
        text = str(error.value)
        assert text.startswith(method.name) and "'field_0'" in text and "remove its hash_rows" in text
        assert "fiited" in text and "pep" not in text.split("or choose")[1]
        if not isinstance(method.ranks, bool):
            assert "{}={}".format(*method.ranks) in text and f"another {method.ranks[0]}" in text


def test_every_method_says_whether_it_needs_ranks() -> None:
    rows = {row["name"]: row["ranks"] for row in json.loads(json.dumps(describe()))}
    assert {name for name, ranks in rows.items() if ranks is True} == {
        *("frequency_cut", "cafe_offline", "lma", "mpe", "mpe_budget", "pep"),
    }
    assert {name: ranks for name, ranks in rows.items() if isinstance(ranks, str)} == {
        "cached_low_precision": "placement=rank",
        "mixed_dimension": "blocks=group",
    }
    for method in METHODS.values():
        if not isinstance(method.ranks, bool):
            (domain,) = [domain for name, _, domain, _ in method.knobs() if name == method.ranks[0]]
            assert method.ranks[1] in domain, "a knob and a value of its own"
