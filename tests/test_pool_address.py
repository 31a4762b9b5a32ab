from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoembed.packed import Packed, SegmentRows, pack
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, check, plan_bytes
from autoembed.pool_address import PoolAddress
from autoembed.tables_file import TablesError
from autoembed_kernels.pool_slots import reference as reference_slots
from autoembed_kernels.signature_pool import reference as signed_slots

ROWS = 6


def signed_plan(profile: str = "packed", block: int = 1, keys: int = 3) -> Plan:
    """Two fields: one by number, one with signatures in between."""
    pool = Segment(0, ROWS, Sharing.POOL, 40, block, "fp32")
    by_number = Segment(0, 1, Sharing.POOL, 0, block, "fp32")
    signed = Segment(1, 4, Sharing.SIGNATURE_POOL, 0, block, "fp32", chunks=keys)
    tail = replace(by_number, start=4, stop=ROWS)
    fields = (FieldPlan("a", ROWS, 4, (pool,)), FieldPlan("b", ROWS, 4, (by_number, signed, tail)))
    return Plan(PROFILES[profile], fields)


SIGNATURES = torch.arange(24, dtype=torch.uint8) * 7 + 3


def packed_plan(plan: Plan, index: torch.Tensor = SIGNATURES) -> Packed:
    def rows_of(_: int, segment: Segment) -> SegmentRows:
        values = torch.arange(float(segment.stored_rows * segment.dim)).view(-1, segment.dim)
        return SegmentRows(values, index=index if segment.sharing is Sharing.SIGNATURE_POOL else None)

    return pack(plan, rows_of)


def test_a_signature_costs_eight_bytes_of_index_and_a_row_placed_by_its_number_none() -> None:
    plan = signed_plan()
    # a header, two fields, four segments with where they end, their stored rows and keys; three signatures
    assert plan_bytes(plan).index == 4 + 2 * 3 + 4 * (2 + 1 + 4 + 1) + 3 * 8
    assert plan_bytes(plan).payload == 40 * 4


def test_rows_are_placed_by_their_signature_where_they_have_one_and_else_by_their_number() -> None:
    plan = signed_plan(block=2)
    address = PoolAddress(plan, SIGNATURES, dim=4)
    segments, places = torch.tensor([0, 1, 2, 2, 3]), torch.tensor([5, 0, 0, 2, 1])
    words = [int.from_bytes(bytes(SIGNATURES[at : at + 8].tolist()), "little") for at in (0, 16)]
    assert address(segments, places).tolist() == [
        reference_slots(5, 0, 2, 2, 80),
        reference_slots(0, 1, 2, 2, 80),
        *(signed_slots(word, 3, 2, 2, 80) for word in words),
        reference_slots(5, 1, 2, 2, 80),
    ]
    assert address(segments[:0], places[:0]).shape == (0, 2)


@pytest.mark.parametrize("profile", ["packed", "packed-row-scale", "fbgemm-cpu"])
def test_every_profile_without_padding_stores_and_reads_back_signatures(profile: str, tmp_path: Path) -> None:
    packed = packed_plan(signed_plan(profile))
    size = packed.save(tmp_path / "tables.safetensors")
    again = Packed.load(tmp_path / "tables.safetensors", ["a", "b"])
    assert size == packed.bytes.total
    assert again.plan == packed.plan
    assert torch.equal(again.segment_index, SIGNATURES)


def test_a_profile_that_pads_rows_takes_wide_blocks_alone() -> None:
    with pytest.raises(ValueError, match=r"fbgemm-gpu.*cannot store a pool of blocks of 1"):
        check(signed_plan("fbgemm-gpu"))
    check(signed_plan("fbgemm-gpu", block=4))


@pytest.mark.parametrize("keys", [0, 9])
def test_blocks_are_placed_by_one_to_eight_keys(keys: int) -> None:
    with pytest.raises(ValueError, match=f"asks for {keys}"):
        check(signed_plan(keys=keys))


def test_signatures_of_another_number_of_rows_are_refused() -> None:
    for index in (SIGNATURES[:-8], SIGNATURES[:0], SIGNATURES.long()):
        with pytest.raises(ValueError, match=r"field 'b', rows \[1, 4\): expected 24 index bytes"):
            packed_plan(signed_plan(), index)


def test_a_file_that_lacks_bytes_of_a_signature_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tables.safetensors"
    packed_plan(signed_plan()).save(path)
    whole = path.read_bytes()
    at = whole.index(SIGNATURES.numpy().tobytes())
    path.write_bytes(whole[:at] + whole[at + 8 :])
    with pytest.raises(TablesError):
        Packed.load(path, ["a", "b"])
