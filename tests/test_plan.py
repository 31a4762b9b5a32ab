import dataclasses
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_plans import packed_with_rows, plans
from safetensors.torch import save

from autoembed.directory import DirectoryError, _varint, decode, encode, plan_from_json, plan_json
from autoembed.plan import (
    BITS,
    FILE_METADATA,
    PRECISIONS,
    PROFILES,
    TENSORS,
    FieldPlan,
    Plan,
    Segment,
    Sharing,
    check,
    header_bytes,
    own,
    plan_bytes,
    tables_header,
)

PACKED = PROFILES["packed"]
CODES = own(0, 3, 4, "int4", scale=0)
TAIL = Segment(3, 3, Sharing.TAIL, 3, 4, "int2", scale=1)


def one_field(*segments: Segment, dim: int = 16, profile: str = "packed", projection_dim: int = 0) -> Plan:
    field = FieldPlan("user", segments[-1].stop, dim, segments, projection_dim)
    return Plan(PROFILES[profile], (field,))


@given(st.lists(st.integers(0, 2**40), min_size=len(TENSORS), max_size=len(TENSORS)))
def test_the_length_of_a_header_is_counted_without_writing_it(values: list[int]) -> None:
    sizes = {name: width * count for (name, (_, width)), count in zip(TENSORS.items(), values, strict=True)}
    assert header_bytes(sizes) == len(tables_header(sizes))


@given(plans(one_dim=False), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_the_byte_model_equals_the_file_to_the_byte(plan: Plan, seed: int) -> None:
    packed, _ = packed_with_rows(plan, seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tables.safetensors"
        written = packed.save(path)
        assert written == os.path.getsize(path) == plan_bytes(plan).total == packed.bytes.total


@given(plans(one_dim=False), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_the_safetensors_library_would_write_the_same_tensor_bytes(plan: Plan, seed: int) -> None:
    packed, _ = packed_with_rows(plan, seed)
    index = torch.frombuffer(bytearray(encode(plan)), dtype=torch.uint8)
    tensors = {name: getattr(packed, name) for name in ("payload", "scales", "offsets", "projections")}
    tensors["index"] = torch.cat([index, packed.segment_index])
    by_library = save({name: t for name, t in tensors.items() if len(t)}, metadata=FILE_METADATA)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tables.safetensors"
        packed.save(path)
        ours = path.read_bytes()
    # the library writes the two metadata keys in any order, so the header's bytes may differ, not its length
    header = plan_bytes(plan).header
    assert len(by_library) == len(ours)
    assert by_library[header:] == ours[header:]


@pytest.mark.parametrize(
    ("profile", "precision", "expected"),
    [
        ("fbgemm-cpu", "int8", 20),
        ("fbgemm-cpu", "int4", 12),
        ("fbgemm-cpu", "int2", 8),
        ("fbgemm-gpu", "int8", 32),
        ("fbgemm-gpu", "int4", 16),
        ("fbgemm-gpu", "int2", 16),
        ("fbgemm-gpu", "fp16", 32),
        ("packed", "int8", 16),
        ("packed", "int3", 6),
        ("packed", "int1", 2),
        ("packed-row-scale", "int4", 10),
        ("packed-row-scale", "fp16", 32),
        ("packed", "fp32", 64),
    ],
)
def test_row_bytes_at_dimension_16_are_those_of_the_format(
    profile: str, precision: str, expected: int
) -> None:
    assert PROFILES[profile].row_bytes(16, precision) == expected


@pytest.mark.parametrize(
    ("profile", "precision", "megabytes"),
    [
        ("fbgemm-cpu", "int8", 675),
        ("fbgemm-gpu", "int8", 1080),
        ("fbgemm-cpu", "int4", 405),
        ("fbgemm-gpu", "int2", 540),
        ("packed", "int2", 135),
        ("packed", "int1", 68),
        ("packed", "fp32", 2161),
    ],
)
def test_criteo_kaggle_at_dimension_16_takes_the_bytes_of_the_layout(
    profile: str, precision: str, megabytes: int
) -> None:
    payload = PROFILES[profile].payload_bytes(33_762_577, 16, precision)
    assert round(payload / 1e6) == megabytes


@given(plans(), st.data())
@settings(deadline=None, max_examples=50)
def test_more_bits_rows_or_dimensions_never_cost_fewer_bytes(plan: Plan, data: st.DataObject) -> None:
    profile = plan.profile
    # a row with its own scale may take more bytes than the same few values without one, so codes are
    # compared with codes and floats with floats
    integer = data.draw(st.booleans())
    order = [p for p in sorted(profile.precisions, key=BITS.__getitem__) if p.startswith("int") == integer]
    narrow = data.draw(st.integers(0, len(order) - 1))
    wide = data.draw(st.integers(narrow, len(order) - 1))
    rows, dim = data.draw(st.integers(1, 500)), data.draw(st.integers(1, 40))
    more_rows, more_dims = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 8))

    def total(rows: int, dim: int, precision: str) -> int:
        shared = integer and profile.row_scale_bytes == 0
        segment = own(0, rows, dim, precision, scale=0 if shared else None)
        return plan_bytes(Plan(profile, (*plan.fields, FieldPlan("user", rows, dim, (segment,))))).total

    assert total(rows, dim, order[narrow]) <= total(rows + more_rows, dim + more_dims, order[wide])


def test_shared_scales_and_offsets_are_paid_once() -> None:
    apart = one_field(own(0, 4, 16, "int4", scale=0, offset=0), own(4, 8, 8, "int4", scale=1, offset=1))
    together = one_field(own(0, 4, 16, "int4", scale=0, offset=0), own(4, 8, 8, "int4", scale=0, offset=0))
    assert plan_bytes(apart).scales - plan_bytes(together).scales == 4
    assert plan_bytes(apart).offsets - plan_bytes(together).offsets == 4 * 8


def test_marks_are_paid_for_in_the_index() -> None:
    marked = Segment(0, 1000, Sharing.MARKED, 10, 4, chunks=2)
    plain = own(0, 1000, 16, "fp32")
    # 2000 marks: 4 counts of 4 bytes, 250 bytes of bits; 4 bytes of stored chunks and one of chunks a row
    assert plan_bytes(one_field(marked)).index - plan_bytes(one_field(plain)).index == 16 + 250 + 5
    assert plan_bytes(one_field(marked)).payload == 10 * 4 * 4
    # one block of 2^16 places, and 2 bytes a mark
    listed = Segment(0, 1000, Sharing.LISTED, 10, 4, chunks=2)
    assert plan_bytes(one_field(listed)).index - plan_bytes(one_field(plain)).index == 4 + 2 * 10 + 5


def test_rows_that_read_row_0_at_the_tail_need_no_vocabulary() -> None:
    tail = Segment(6, 9, Sharing.OOV)
    assert one_field(own(0, 6, 4, "fp32"), tail).kept_rows == (6,)
    assert one_field(own(0, 6, 4, "fp32"), Segment(6, 9, Sharing.ZERO)).kept_rows == (9,)
    assert one_field(own(0, 6, 4, "fp32"), tail, own(9, 10, 4, "fp32")).kept_rows == (10,)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (one_field(own(1, 3, 4, "fp32")), "must start at 0"),
        (one_field(own(0, 3, 4, "fp32"), own(3, 3, 4, "fp32")), "non-empty"),
        (one_field(own(0, 3, 17, "fp32")), "stored dimension 17 must be in 1..16"),
        (one_field(own(0, 3, 5, "fp32"), projection_dim=4), "must be in 1..4"),
        (one_field(own(0, 3, 4, "int3"), profile="fbgemm-cpu"), "cannot store 'int3'"),
        (one_field(own(0, 3, 4, "int4")), "shared scale exactly where"),
        (one_field(own(0, 3, 4, "int4", scale=0), profile="packed-row-scale"), "shared scale exactly where"),
        (one_field(own(0, 3, 4, "fp16", offset=0)), "an offset needs integer codes"),
        (one_field(Segment(0, 3, Sharing.OOV)), "cannot read itself"),
        (one_field(Segment(0, 3, Sharing.ZERO, 1, 4)), "store no row"),
        (one_field(Segment(0, 3, Sharing.HASHED, 4, 4)), "1 <= stored_rows <= 3, got 4"),
        (one_field(Segment(0, 3, Sharing.OWN, 2, 4)), "need stored_rows = 3, got 2"),
        (one_field(Segment(0, 3, Sharing.CODEBOOK, 4, 4)), "1 <= stored_rows <= 3, got 4"),
        (one_field(Segment(0, 3, Sharing.OWN, 3, 4, chunks=2)), "only marked vectors"),
        (one_field(Segment(0, 3, Sharing.ZERO, chunks=2)), "only marked vectors"),
        (one_field(CODES, replace(TAIL, dim=13)), "13 columns behind 4 are not in 1..12"),
        (one_field(CODES, replace(TAIL, stored_rows=2)), "the 3 rows that end at 3"),
        (one_field(CODES, replace(TAIL, stop=4)), "has no ids"),
        (one_field(CODES, replace(TAIL, precision="fp16", scale=None)), "holds integer codes"),
        (one_field(CODES, replace(TAIL, scale=None)), "has a shared scale"),
        (
            one_field(own(0, 3, 4, "fp32"), TAIL),
            "goes on with rows of their own or of a codebook, of integer codes",
        ),
        (one_field(replace(TAIL, start=0, stop=0)), "goes on with rows of their own"),
        (one_field(Segment(0, 3, Sharing.MARKED, 3, 6, chunks=3)), "together at most 16"),
        (one_field(Segment(0, 3, Sharing.MARKED, 3, 1, chunks=9)), "must be 1..8"),
        (one_field(Segment(0, 3, Sharing.MARKED, 7, 4, chunks=2)), "1 <= stored_rows <= 6, got 7"),
        (one_field(Segment(0, 3, Sharing.MARKED, 0, 4, chunks=2)), "1 <= stored_rows <= 6, got 0"),
        (one_field(Segment(0, 3, Sharing.MARKED_OR_HASHED, 2, 4, chunks=2)), "chunks must be 1, got 2"),
        (one_field(Segment(0, 3, Sharing.MARKED_OR_HASHED, 7, 4)), "1 <= stored_rows <= 6, got 7"),
        (Plan(PACKED, (FieldPlan("user", 5, 4, (own(0, 3, 4, "fp32"),)),)), "cover 3 of 5 rows"),
        (
            Plan(PACKED, (FieldPlan("user", 2**32, 1, (own(0, 2**32, 1, "fp32"),)),)),
            "exceed the format's limits",
        ),
        (one_field(own(0, 3, 4, "int4", scale=0xFFFE)), "at most 65534 scales"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_refused_with_the_rule(plan: Plan, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(plan)


@given(plans(one_dim=False))
@settings(deadline=None, max_examples=50)
def test_the_index_and_the_json_describe_the_whole_plan(plan: Plan) -> None:
    names = [field.name for field in plan.fields]
    assert decode(encode(plan), names) == plan
    assert plan_from_json(plan_json(plan)) == plan


@given(plans(one_dim=False), st.data())
@settings(deadline=None, max_examples=50)
def test_an_altered_index_is_refused_or_describes_another_valid_plan(plan: Plan, data: st.DataObject) -> None:
    index = bytearray(encode(plan))
    at = data.draw(st.integers(0, len(index) - 1))
    index[at] ^= data.draw(st.integers(1, 255))
    names = [field.name for field in plan.fields]
    try:
        other = decode(bytes(index), names)
    except DirectoryError:
        return
    check(other)
    assert other != plan


def test_the_numbers_in_the_index_never_change() -> None:
    assert tuple(PROFILES) == ("packed", "packed-row-scale", "fbgemm-cpu", "fbgemm-gpu")
    assert (*(f"int{bits}" for bits in range(1, 9)), "fp16", "bf16", "fp32") == PRECISIONS
    sharings = ("OWN", "HASHED", "OOV", "ZERO")
    sharings += ("QUOTIENT_ADD", "QUOTIENT_MULTIPLY", "QUOTIENT_CONCATENATE", "POOL")
    sharings += (
        "MARKED",
        "MARKED_OR_HASHED",
        "SIGNATURE_POOL",
        "QUOTIENT_PATH",
        "LISTED",
        "TAIL",
        "CODEBOOK",
    )
    assert tuple((s.name, s.value) for s in Sharing) == tuple(zip(sharings, range(15), strict=True))


def test_a_tail_takes_an_entry_a_scale_and_rows_of_whole_bytes() -> None:
    plain, tailed = one_field(CODES), one_field(CODES, TAIL, replace(TAIL, dim=5, precision="int3"))
    before, after = plan_bytes(plain), plan_bytes(tailed)
    # sharing, precision and dimension; two have one scale, so that all three tell theirs
    assert after.payload - before.payload == 3 * (1 + 2) and after.index - before.index == 2 * 2 + 3
    assert after.scales - before.scales == 4
    assert tailed.kept_rows == (3,)
    for other in ("packed-row-scale", "fbgemm-cpu", "fbgemm-gpu"):
        with pytest.raises(ValueError, match="shared scale"):
            check(one_field(own(0, 3, 4, "int4"), replace(TAIL, scale=None), profile=other))


def test_an_index_that_ends_early_or_late_is_refused() -> None:
    index = encode(one_field(own(0, 3, 4, "fp32")))
    for length in range(len(index)):
        with pytest.raises(DirectoryError):
            decode(index[:length])
    with pytest.raises(DirectoryError, match=f"{len(index) + 1} bytes, its directory {len(index)}"):
        decode(index + b"\0")
    with pytest.raises(DirectoryError, match="version 1"):
        decode(b"\1" + index[1:])
    with pytest.raises(DirectoryError, match="2 names"):
        decode(index, ["a", "b"])


def test_numbers_wider_than_any_plan_has_are_refused_before_memory_is_taken() -> None:
    codes = own(0, 3, 4, "int4", scale=0, offset=0)
    index = bytearray(encode(one_field(codes)))
    assert index[2] == 1 << 3, "offsets of a byte"
    for told in (3 << 3, 4 << 3, 7 << 3, 3, 7, 1 << 3 | 128):
        index[2] = told
        with pytest.raises(DirectoryError, match="unknown way"):
            decode(bytes(index) + bytes(100))
    # two bytes a segment, none of which has ids
    with pytest.raises(DirectoryError, match="ends at 1 of 9 rows"):
        decode(bytes((2, 0, 0, 1, 9, 4, 0)) + bytes((Sharing.ZERO, 1)) * 100_000)


@pytest.mark.parametrize("rows", [1, 255, 256, 65535, 65536, 2**24, 2**32 - 1])
@pytest.mark.parametrize("dim", [14, 15, 16, 255, 256, 300])
def test_numbers_take_the_bytes_that_they_need(rows: int, dim: int) -> None:
    """Fields at the ends of what 1 to 4 bytes hold, dimensions that are told where they are and behind."""
    plan = Plan(
        PACKED,
        tuple(
            FieldPlan(f"f{width}", rows, dim, (replace(own(0, rows, width, "int3", scale=n), offset=offset),))
            for n, (width, offset) in enumerate(((dim, None), (min(14, dim), 254), (min(15, dim), 0)))
        ),
    )
    index = encode(plan)
    assert decode(index, [field.name for field in plan.fields]) == plan
    row_bytes = next(size for size in (1, 2, 3, 4) if rows < 256**size)
    told = [0, 0, 0 if dim <= 15 else 1 if dim < 256 else 2]
    field = len(_varint(rows)) + len(_varint(dim)) + 1
    assert len(index) == 4 + sum(field + 2 + row_bytes + 1 + more for more in told)
    assert plan_bytes(plan).index == len(index)


def test_a_matrix_of_fewer_than_no_columns_is_refused() -> None:
    plan = one_field(own(0, 3, 4, "fp32"))
    with pytest.raises(ValueError, match=r"in 1\.\.-1"):
        check(Plan(PACKED, (replace(plan.fields[0], projection_dim=-1),)))


def test_json_that_is_no_plan_is_refused() -> None:
    content = plan_json(one_field(own(0, 3, 4, "fp32")))
    for broken in (
        {},
        {**content, "version": 2},
        {**content, "profile": "abacus"},
        {**content, "fields": [1]},
    ):
        with pytest.raises(ValueError, match=r"plan|version"):
            plan_from_json(broken)


def test_plans_are_values() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PACKED.row_align = 3  # type: ignore[misc]
