"""Codes with a cache: reads are always the latest values, flushing keeps expectations, hot rows are exact."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.settings import all_rows, batch, spec, stats

from autoembed.data.batch import Batch
from autoembed.methods import make_method
from autoembed.methods.base import TableSpec
from autoembed.methods.cached_low_precision import CachedTable
from autoembed.methods.code_rows import CodeRows
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES
from autoembed.stats import FieldStats, Stats
from autoembed_kernels.row_update import RowOptimizer

PROFILE = "packed-row-scale"


def table(**parameters: object) -> CachedTable:
    made = make_method("cached_low_precision", parameters).table(
        spec(PROFILE), torch.Generator().manual_seed(2), RowOptimizer("sgd")
    )
    assert isinstance(made, CachedTable)
    return made


def code_rows(rows: int, dim: int, bits: int, seed: int) -> CodeRows:
    counts = np.ones(rows, dtype=np.int64)
    one = TableSpec(Stats((FieldStats("field", counts, False),)), dim, PROFILES[PROFILE])
    return CodeRows(one, bits, torch.Generator().manual_seed(seed), RowOptimizer("sgd"))


@given(bits=st.sampled_from([4, 8]), dim=st.integers(1, 9), rows=st.integers(1, 20), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=40)
def test_codes_keep_rows_within_a_step_and_unmoved_rows_as_they_are(
    bits: int, dim: int, rows: int, seed: int
) -> None:
    held = code_rows(rows, dim, bits, seed)
    values = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    values[0] = 0.0
    every = torch.arange(rows)
    held.write(every, values)
    read = held.read(every)
    steps = held.steps.float().unsqueeze(1)
    assert ((read - values).abs() <= steps * (1 + 1e-6)).all() and not read[0].any()
    held.write(every, read)
    # a row that was rounded to its largest code keeps its step, and with it all of its codes
    same = read.abs().amax(1) >= held.largest * steps.squeeze(1) * (1 - 1e-6)
    assert torch.equal(held.read(every)[same], read[same])


def test_rounding_by_chance_has_the_value_as_its_mean() -> None:
    value = torch.tensor([[0.013, 1.0, -0.41, 0.77]])
    held = code_rows(1, 4, 4, seed=5)
    reads = []
    for _ in range(3000):
        held.write(torch.zeros(1, dtype=torch.int64), value)
        reads.append(held.read(torch.zeros(1, dtype=torch.int64)))
    mean = torch.cat(reads).mean(0)
    error = float(held.steps[0]) / 2 / 3000**0.5
    assert ((mean - value[0]).abs() < 4 * error).all()


@pytest.mark.parametrize("placement", ["lru", "lfu"])
def test_a_row_in_the_cache_trains_in_float32_until_it_leaves(placement: str) -> None:
    made = table(bits=4, cache=1.0, placement=placement)
    example = batch(64, seed=1)
    with torch.enable_grad():
        before = made(example)
        before.sum().backward()
    made.update(1e-5)  # far below half a step of 4 bits
    assert made.cache is not None
    rows, slots = made.cache.rows()
    moved = made.cached[slots] - made.codes.read(rows)
    assert (moved != 0).any(1).float().mean() > 0.9 and float(moved.abs().max()) < 1e-3
    values = {row: made.cached[slot].clone() for row, slot in zip(rows.tolist(), slots.tolist(), strict=True)}
    steps = made.codes.steps
    made.flush()
    assert len(made.cache.rows()[0]) == 0
    for row, value in list(values.items())[:20]:
        read = made.codes.read(torch.tensor([row]))[0]
        assert ((read - value).abs() <= float(steps[row]) * (1 + 1e-3)).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("placement", ["lru", "lfu"])
def test_what_was_trained_in_the_cache_is_written_back_by_flush(placement: str, bits: int) -> None:
    made = table(bits=bits, cache=1.0, placement=placement)
    assert made.cache is not None
    every = torch.arange(stats().rows)
    before = made.codes.read(every)
    example = batch(64, seed=1)
    (made(example) * torch.randn(8, generator=torch.Generator().manual_seed(3))).sum().backward()
    made.update(0.5)  # many steps of the codes
    rows, slots = made.cache.rows()
    trained = made.cached[slots].clone()
    assert torch.equal(made.codes.read(every), before), "the codes wait until the rows leave"
    made.flush()
    steps = made.codes.steps[rows].float().unsqueeze(1)
    read = made.codes.read(rows)
    assert ((read - trained).abs() <= steps * (1 + 1e-3)).all()
    moved = (trained - before[rows]).abs() > 2 * steps  # 4 bits have seven steps to either side
    assert moved.float().mean() > 0.3 and (read != before[rows])[moved].all()
    others = torch.ones(len(every), dtype=torch.bool).index_fill(0, rows, False)
    assert torch.equal(made.codes.read(every)[others], before[others])


@pytest.mark.parametrize("placement", ["lru", "lfu"])
def test_rows_that_are_evicted_keep_what_they_learned(placement: str) -> None:
    counts = np.ones(400, dtype=np.int64)
    at = TableSpec(Stats((FieldStats("field", counts),)), 8, PROFILES[PROFILE])
    method = make_method("cached_low_precision", {"bits": 8, "cache": 0.08, "placement": placement})
    made = method.table(at, torch.Generator().manual_seed(1), RowOptimizer("sgd"))
    assert isinstance(made, CachedTable) and made.cache is not None
    slots = len(made.cache.tags)
    assert slots < 40
    trained: dict[int, torch.Tensor] = {}
    evicted = 0
    # other rows in every step, more than there are slots: the first ones have to leave
    for start in range(0, 200, 20):
        rows = torch.arange(start, start + 20)
        made(Batch(torch.zeros(20), torch.zeros(20, 0), rows.unsqueeze(1), {})).sum().backward()
        made.update(0.5)
        held = dict(zip(*(x.tolist() for x in made.cache.rows()), strict=True))
        for row in rows.tolist():
            if row in held:
                trained[row] = made.cached[held[row]].clone()
        gone = [row for row in trained if row not in held]
        evicted = len(gone)
        read = made.codes.read(torch.tensor(gone, dtype=torch.int64))
        steps = made.codes.steps[gone].float().unsqueeze(1)
        expected = torch.stack([trained[row] for row in gone]) if gone else read
        assert ((read - expected).abs() <= steps * (1 + 1e-3)).all()
        assert (expected < -0.3).all(), "a step of .5 leaves no row near where it began"
    assert evicted > 100


def test_flushing_has_the_trained_rows_as_its_mean() -> None:
    made = table(bits=4, cache=1.0)
    assert made.cache is not None
    made(batch(64, seed=1)).square().sum().backward()
    made.update(0.5)
    rows, slots = made.cache.rows()
    value, tags = made.cached[slots].clone(), made.cache.tags.clone()
    reads = torch.zeros_like(value)
    for _ in range(400):
        made.cache.tags.copy_(tags)
        made.flush()
        reads += made.codes.read(rows)
    error = made.codes.steps[rows].float().unsqueeze(1) / 2 / 400**0.5
    assert ((reads / 400 - value).abs() < 5.5 * error).all()


def test_evaluation_changes_nothing() -> None:
    made = table(cache=0.05)
    made(batch(64, seed=1)).sum().backward()
    made.update(0.1)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with torch.no_grad():
        first = made(all_rows())
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    with torch.no_grad():
        assert torch.equal(made(all_rows()), first)


def test_the_most_frequent_rows_are_exact_under_rank() -> None:
    made = table(bits=4, cache=0.1, placement="rank")
    hot = made.hot.tolist()
    assert sum(hot) == round(0.1 * stats().rows)
    counts = stats().fields[0].counts
    assert hot[0] > 5 and counts[1:].tolist() == sorted(counts[1:].tolist(), reverse=True)
    plan = made.plan()
    assert plan.fields[0].segments[0].precision == "fp32" and plan.fields[0].segments[0].stop == hot[0]
    assert made.resident is not None
    reader = PackedTable(made.pack(), stats().first_rows)
    torch.testing.assert_close(reader.decode(0)[: hot[0]], made.resident.weight[: hot[0]], atol=0, rtol=0)


def test_training_holds_fewer_bytes_the_fewer_bits_and_slots() -> None:
    sizes = [table(bits=bits, cache=cache).training_bytes for bits in (4, 8) for cache in (0.01, 0.3)]
    full = 4 * 8 * stats().rows
    assert sizes[0] < sizes[1] and sizes[2] < sizes[3] and sizes[0] < sizes[2] and sizes[0] < full


@pytest.mark.parametrize(("placement", "per_slot", "per_row"), [("lru", 4, 0), ("lfu", 0, 4)])
def test_codes_steps_slots_tags_and_counters_are_all_that_training_holds(
    placement: str, per_slot: int, per_row: int
) -> None:
    counts = np.ones(10_000, dtype=np.int64)
    at = TableSpec(Stats((FieldStats("field", counts),)), 16, PROFILES[PROFILE])
    slots = 15 * 32  # whole sets of 480 of the 500 slots asked for
    for bits, row_bytes in ((8, 16), (4, 8)):
        method = make_method("cached_low_precision", {"bits": bits, "cache": 0.05, "placement": placement})
        made = method.table(at, torch.Generator().manual_seed(1), RowOptimizer("rowwise_adagrad"))
        rows = 10_000 * (row_bytes + 2 + 4 + per_row)  # codes, step, optimizer state, counter
        places = 2 * 8  # the field's first row, and how many of its rows are float32 for good
        assert made.training_bytes == rows + slots * (4 * 16 + 4 + per_slot) + places


def test_a_profile_without_scales_in_the_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="'packed' cannot store a scale in each row"):
        make_method("cached_low_precision", {}).footprint(spec("packed"))


@pytest.mark.parametrize(
    ("rows", "cache", "held"), [(63, 1.0, 32), (64, 1.0, 64), (63, 0.2, 13), (2000, 0.05, 96)]
)
def test_the_cache_has_whole_sets_or_one_smaller_set(rows: int, cache: float, held: int) -> None:
    one = TableSpec(Stats((FieldStats("field", np.ones(rows, dtype=np.int64)),)), 4, PROFILES[PROFILE])
    method = make_method("cached_low_precision", {"cache": cache})
    made = method.table(one, torch.Generator().manual_seed(2), RowOptimizer("sgd"))
    assert isinstance(made, CachedTable)
    assert len(made.cached) == held
