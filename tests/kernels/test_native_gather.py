"""Look-ups in packed tables in C++ against the reference and against torch."""

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native, poisoned
from random_plans import packed_with_rows, plans

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, own
from autoembed_kernels.gather_packed import (
    BF16,
    FP16,
    FP32,
    INTEGER,
    PackedSegments,
    as_words,
    native_gather_packed,
    reference_gather_packed,
    torch_gather_packed,
)
from autoembed_kernels.look_up_packed import look_up_packed, native_look_up_packed, torch_look_up_packed

KINDS = {INTEGER: None, FP16: torch.float16, BF16: torch.bfloat16, FP32: torch.float32}
Layout = tuple[int, int, int, int]  # kind, bits, dim, rows


def build(
    layouts: list[Layout], front: int, width: int, generator: torch.Generator
) -> tuple[torch.Tensor, PackedSegments]:
    """A payload of random bytes, or random numbers where they are floats, and its segments."""
    parts, base, row_bytes, at = [], [], [], 0
    for kind, bits, dim, rows in layouts:
        dtype = KINDS[kind]
        if dtype is None:
            body = torch.randint(0, 256, (rows, -(-dim * bits // 8)), generator=generator, dtype=torch.uint8)
            numbers = torch.rand(rows, front // 2, generator=generator).half().view(torch.uint8)
            body = torch.cat([numbers, body], dim=1)
        else:
            body = torch.randn(rows, dim, generator=generator).to(dtype).view(torch.uint8)
        base.append(at)
        row_bytes.append(body.shape[1])
        parts.append(body.flatten())
        at += body.numel()
    kinds = [kind for kind, _, _, _ in layouts]
    count = len(layouts)
    return torch.cat(parts), PackedSegments(
        base=torch.tensor(base),
        row_bytes=torch.tensor(row_bytes),
        dim=torch.tensor([dim for _, _, dim, _ in layouts]),
        bits=torch.tensor([bits for _, bits, _, _ in layouts]),
        kind=torch.tensor(kinds, dtype=torch.uint8),
        front=torch.tensor([front if kind == INTEGER else 0 for kind in kinds]),
        shift=torch.randint(-128, 1, (count,), generator=generator).float(),
        scale=torch.rand(count, generator=generator),
        offset=torch.arange(count) % 2,
        offsets=torch.randn(2, width, generator=generator),
        kinds=tuple(sorted(set(kinds))),
        row_scales=front >= 2,
        row_biases=front == 4,
        any_narrow=True,
        any_offset=True,
        width=width,
    )


layout = st.tuples(
    st.sampled_from([INTEGER, INTEGER, *KINDS]), st.integers(1, 8), st.integers(1, 18), st.integers(1, 6)
)


@given(
    st.lists(layout, min_size=1, max_size=6),
    st.sampled_from([0, 2, 4]),
    st.sampled_from([18, 24, 32, 35]),
    # more than two blocks of 32 look-ups, and parts of a block
    st.integers(0, 80),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=25)
def test_mixed_segments_read_as_the_reference_and_bit_for_bit_as_torch(
    layouts: list[Layout], front: int, width: int, count: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    payload, segments = build(layouts, front, width, generator)
    segment = torch.randint(0, len(layouts), (count,), generator=generator)
    rows = torch.tensor([rows for _, _, _, rows in layouts])[segment]
    row = (torch.rand(count, generator=generator) * rows).long()
    words = as_words(payload, width)
    values = native_gather_packed(native(), words, segments, segment, row, poisoned(count, width))
    assert torch.equal(values, torch_gather_packed(words, segments, segment, row))
    expected = reference_gather_packed(payload, segments, segment, row)
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=3 * 2.0**-24 * 392)


@pytest.mark.parametrize("kind", [FP16, BF16])
def test_every_half_precision_number_is_read_exactly(kind: int) -> None:
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(-1, 8)
    _, segments = build([(kind, 8, 8, 1)], 0, 8, torch.Generator().manual_seed(0))
    words, row = as_words(numbers.view(torch.uint8).flatten(), 8), torch.arange(2**13)
    values = native_gather_packed(
        native(), words, segments, torch.zeros_like(row), row, torch.zeros(len(row), 8)
    )
    expected = numbers.view(KINDS[kind]).float()
    torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dim", [1, 7, 8, 17])
def test_every_width_reads_its_last_row(bits: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    payload, segments = build([(INTEGER, bits, dim, 3)], 0, 17, generator)
    segment, row = torch.zeros(1, dtype=torch.int64), torch.tensor([2])
    values = native_gather_packed(native(), as_words(payload, 17), segments, segment, row, poisoned(1, 17))
    expected = reference_gather_packed(payload, segments, segment, row)
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=3 * 2.0**-24 * 392)


@pytest.mark.parametrize(
    ("segment", "row"), [(-1, 0), (2, 0), (0, -1), (0, 10**6), (1, 2**62), (0, -(2**63))]
)
def test_a_look_up_outside_the_payload_raises(segment: int, row: int) -> None:
    payload, segments = build([(INTEGER, 3, 5, 4), (FP32, 8, 5, 4)], 0, 5, torch.Generator().manual_seed(0))
    which, rows = torch.tensor([0, segment]), torch.tensor([0, row])
    with pytest.raises(IndexError, match=f"row {row} of segment {segment}"):
        native_gather_packed(native(), as_words(payload, 5), segments, which, rows, poisoned(2, 5))


def test_numbers_of_another_type_are_refused() -> None:
    payload, segments = build([(INTEGER, 3, 5, 4)], 0, 5, torch.Generator().manual_seed(0))
    wrong = dataclasses.replace(segments, shift=segments.shift.long())
    zero = torch.zeros(1, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"shift is torch\.int64, expected torch\.float32"):
        native_gather_packed(native(), as_words(payload, 5), wrong, zero, zero, poisoned(1, 5))


@given(plans(single_rows=True), st.integers(1, 5), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_rows_of_any_plan_are_looked_up_as_torch_looks_them_up(plan: Plan, columns: int, seed: int) -> None:
    packed, _ = packed_with_rows(plan, seed)
    table = PackedTable(packed)
    total = sum(field.rows for field in plan.fields)
    rows = torch.randint(0, total, (90,), generator=torch.Generator().manual_seed(seed))
    rows = torch.cat([rows, torch.arange(total)])
    held = (table.words, table._layout, table._addresses)
    found = native_look_up_packed(native(), *held, rows, columns, poisoned(len(rows), table.width))
    assert torch.equal(found, torch_look_up_packed(*held, rows))
    for wrong in (-1, total):
        with pytest.raises(IndexError, match=f"row {wrong} at place 1 is out of range, there are {total}"):
            native_look_up_packed(
                native(), *held, torch.tensor([0, wrong]), columns, poisoned(2, table.width)
            )


@given(
    plans(single_rows=True),
    st.integers(0, 150),
    st.sampled_from([torch.int32, torch.int64]),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=25)
def test_rows_that_come_field_by_field_in_turn_are_looked_up_as_torch_looks_them_up(
    plan: Plan, examples: int, dtype: torch.dtype, turned: bool, seed: int
) -> None:
    packed, _ = packed_with_rows(plan, seed)
    table = PackedTable(packed)
    sizes = torch.tensor([field.rows for field in plan.fields])
    chance = torch.rand(examples, len(sizes), generator=torch.Generator().manual_seed(seed))
    rows = (chance * sizes).long() + sizes.cumsum(0) - sizes
    if turned:  # from the middle on, the fields come in another order
        rows[examples // 2 :] = rows[examples // 2 :].flip(1)
    rows = rows.flatten().to(dtype)
    held = (table.words, table._layout, table._addresses)
    values = poisoned(len(rows), table.width)
    found = native_look_up_packed(native(), *held, rows, len(sizes), values)
    assert torch.equal(found, torch_look_up_packed(*held, rows.long()))
    strided = torch.stack([rows, rows], 1)[:, 0]
    assert torch.equal(look_up_packed(*held, strided, len(sizes)), found)
    if examples:
        wrong = rows.clone()
        wrong[-1] = int(sizes.sum())
        with pytest.raises(IndexError, match=f"at place {len(rows) - 1} is out of range"):
            native_look_up_packed(native(), *held, wrong, len(sizes), values)


@given(
    st.lists(st.sampled_from(["int1", "int4", "int8", "fp16"]), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200)), min_size=1, max_size=8),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=40)
def test_runs_of_look_ups_of_one_field_are_decoded_as_that_field(
    precisions: list[str], runs: list[tuple[int, int]], columns: int
) -> None:
    """Fields of one segment, whose look-ups share a table of segments; it must not change under a block."""
    fields = [
        FieldPlan(str(n), 7, 8, (own(0, 7, 8 - n, p, scale=n if p.startswith("int") else None),))
        for n, p in enumerate(precisions)
    ]
    table = PackedTable(packed_with_rows(Plan(PROFILES["packed"], tuple(fields)), 0)[0])
    rows = torch.cat([7 * (field % len(fields)) + torch.arange(count) % 7 for field, count in runs])
    held = (table.words, table._layout, table._addresses)
    found = native_look_up_packed(native(), *held, rows, columns, poisoned(len(rows), table.width))
    assert torch.equal(found, torch_look_up_packed(*held, rows))


def small_table() -> PackedTable:
    plan = Plan(PROFILES["packed"], (FieldPlan("a", 9, 5, (own(0, 9, 5, "int3", scale=0),)),))
    return PackedTable(packed_with_rows(plan, 0)[0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda table: pickle.loads(pickle.dumps(table))])
def test_a_copy_of_a_table_reads_its_own_memory(copied: Callable[[PackedTable], PackedTable]) -> None:
    native()
    table = small_table()
    rows = torch.arange(9)
    before = table.stored(rows)
    other = copied(table)
    table.words.zero_()
    table.get_buffer("segment_scale").zero_()
    assert torch.equal(other.stored(rows), before)
    assert not table.stored(rows).any()


def test_a_table_reads_the_buffers_that_replaced_its_own() -> None:
    native()
    table = small_table()
    rows = torch.arange(9)
    before = table.stored(rows)
    table.register_buffer("segment_scale", table.get_buffer("segment_scale") * 2, persistent=False)
    assert torch.equal(table.stored(rows), before * 2)


@pytest.mark.parametrize("dim", [5, 8, 16, 24, 32, 64])
@pytest.mark.parametrize(
    "precision", ["int1", "int2", "int3", "int4", "int7", "int8", "fp16", "bf16", "fp32"]
)
def test_fields_of_one_precision_are_looked_up_as_torch_looks_them_up(dim: int, precision: str) -> None:
    scale = 0 if precision.startswith("int") else None
    fields = tuple(FieldPlan(name, 9, dim, (own(0, 9, dim, precision, scale=scale),)) for name in "abc")
    table = PackedTable(packed_with_rows(Plan(PROFILES["packed"], fields), dim)[0])
    held = (table.words, table._layout, table._addresses)
    ids = torch.randint(0, 9, (101, 3), generator=torch.Generator().manual_seed(dim))
    rows = (ids + table.first_rows).flatten()
    expected = torch_look_up_packed(*held, rows)
    assert torch.equal(native_look_up_packed(native(), *held, rows, 3, poisoned(303, dim)), expected)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    found = native_look_up_packed(native(), *held, rows, 3, poisoned(303, dim))
    torch.set_num_threads(threads)
    assert torch.equal(found, expected)


def test_look_ups_of_other_shapes_are_refused() -> None:
    table = small_table()
    rows = torch.zeros(2, 3, dtype=torch.int64)
    for words, some in ((table.words, rows), (table.words.view(torch.uint8), rows[0])):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            look_up_packed(words, *table._held(), some)


@pytest.mark.parametrize("dim", [8, 16, 32, 64])
@pytest.mark.parametrize(
    "precisions", [["int8"], ["int4"], ["int3", "int6"], ["fp16"], ["fp32"], ["int8", "fp16", "fp32", "int2"]]
)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shift", [0, 1])
def test_large_batches_are_written_past_the_cache_as_torch_looks_them_up(
    dim: int, precisions: list[str], threads: int, shift: int
) -> None:
    """2.5 MB and more; also to rows that do not begin at a line, which are written as others."""
    segments = [
        own(10 * n, 10 * n + 10, dim, precision, scale=0 if precision.startswith("int") else None)
        for n, precision in enumerate(precisions)
    ]
    fields = tuple(FieldPlan(name, 10 * len(precisions), dim, tuple(segments)) for name in "abc")
    table = PackedTable(packed_with_rows(Plan(PROFILES["packed"], fields), dim)[0])
    held = (table.words, table._layout, table._addresses)
    examples = (5 << 19) // (3 * 4 * dim) + 7
    generator = torch.Generator().manual_seed(dim)
    ids = torch.randint(0, 10 * len(precisions), (examples, 3), generator=generator)
    rows = (ids + table.first_rows).flatten()
    room = poisoned(len(rows) * dim + 1).flatten()[shift : len(rows) * dim + shift].view(len(rows), dim)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found = native_look_up_packed(native(), *held, rows, 3, room)
    torch.set_num_threads(before)
    assert torch.equal(found, torch_look_up_packed(*held, rows))


@pytest.mark.parametrize("wrong", [-1, 27, 2**31 + 1, 2**32 + 1, 2**63 - 1, -(2**63), -(2**63) + 5])
@pytest.mark.parametrize("precisions", [["int8"], ["int4", "fp16"]])
def test_rows_out_of_range_are_found_in_every_place_of_a_turn(precisions: list[str], wrong: int) -> None:
    """Behind blocks of what is expected, where rows are compared in vectors."""
    rows_of = 9 // len(precisions)
    segments = [
        own(rows_of * n, 9 if n + 1 == len(precisions) else rows_of, 8, precision, scale=scale)
        for n, (precision, scale) in enumerate(zip(precisions, (0, None), strict=False))
    ]
    fields = tuple(FieldPlan(name, 9, 8, tuple(segments)) for name in "abc")
    table = PackedTable(packed_with_rows(Plan(PROFILES["packed"], fields), 8)[0])
    held = (table.words, table._layout, table._addresses)
    rows = torch.tensor([0, 9, 18]).repeat(90)
    for place in (128, 129, 130, 191, 192, 269):
        rows_and_wrong = rows.clone()
        rows_and_wrong[place] = wrong
        with pytest.raises(IndexError, match=f"row {wrong} at place {place} is out of range"):
            native_look_up_packed(native(), *held, rows_and_wrong, 3, poisoned(270, 8))
