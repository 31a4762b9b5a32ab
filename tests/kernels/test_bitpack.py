import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native

from autoembed_kernels.bitpack import (
    native_pack_bits,
    native_unpack_bits,
    pack_bits,
    packed_row_bytes,
    reference_pack_bits,
    reference_unpack_bits,
    torch_pack_bits,
    torch_unpack_bits,
    unpack_bits,
)


@st.composite
def codes_and_bits(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    bits = draw(st.integers(1, 8))
    rows, dim = draw(st.integers(0, 5)), draw(st.integers(1, 19))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    return torch.randint(0, 1 << bits, (rows, dim), generator=generator, dtype=torch.uint8), bits


@given(codes_and_bits())
@settings(deadline=None, max_examples=50)
def test_packed_bits_equal_the_bit_by_bit_reference_and_come_back(case: tuple[torch.Tensor, int]) -> None:
    codes, bits = case
    packed = pack_bits(codes, bits)
    assert packed.shape == (len(codes), packed_row_bytes(codes.shape[1], bits))
    assert torch.equal(packed, reference_pack_bits(codes, bits))
    assert torch.equal(unpack_bits(packed, codes.shape[1], bits), codes)
    assert torch.equal(reference_unpack_bits(packed, codes.shape[1], bits), codes)


@given(codes_and_bits(), st.sampled_from([1, 3]))
@settings(deadline=None, max_examples=50)
def test_the_library_writes_the_bytes_of_torch(case: tuple[torch.Tensor, int], workers: int) -> None:
    codes, bits = case
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(workers)
        packed = native_pack_bits(native(), codes, bits)
        assert torch.equal(packed, torch_pack_bits(codes, bits))
        unpacked = native_unpack_bits(native(), packed, codes.shape[1], bits)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(unpacked, codes) and torch.equal(
        torch_unpack_bits(packed, codes.shape[1], bits), codes
    )


def test_slices_and_transposes_pack_as_they_are_read() -> None:
    codes = torch.arange(60).view(10, 6).T % 8
    packed = pack_bits(codes, 3)
    assert torch.equal(packed, reference_pack_bits(codes, 3))
    wide = torch.zeros(6, 9, dtype=torch.uint8)
    wide[:, 2:6] = packed
    assert torch.equal(unpack_bits(wide[:, 2:6], 10, 3), codes.to(torch.uint8))


def test_the_layout_is_the_documented_one() -> None:
    # codes 1, 2, 3 of 3 bits: 001 | 010 << 3 | 011 << 6 = 0b0_11010001 -> bytes 0xD1, 0x00
    assert pack_bits(torch.tensor([[1, 2, 3]]), 3).tolist() == [[0xD1, 0x00]]
    # 4 bits: the first code is the low half of the byte, as FBGEMM reads it
    assert pack_bits(torch.tensor([[0xA, 0xB, 0xC]]), 4).tolist() == [[0xBA, 0x0C]]
    # 2 bits: low bits first
    assert pack_bits(torch.tensor([[3, 0, 1, 2]]), 2).tolist() == [[0b10010011]]


def test_wide_and_narrow_integer_types_pack_alike() -> None:
    codes = torch.arange(40).view(4, 10) % 32
    assert torch.equal(pack_bits(codes, 5), pack_bits(codes.to(torch.uint8), 5))


@pytest.mark.parametrize("bits", [-1, 0, 9])
def test_other_bits_are_refused(bits: int) -> None:
    codes = torch.zeros(2, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"1 to 8 bits, got {bits}"):
        pack_bits(codes, bits)
    with pytest.raises(ValueError, match=f"1 to 8 bits, got {bits}"):
        unpack_bits(codes, 8, bits)


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int8])
def test_bytes_in_another_dtype_are_read_as_bytes(bits: int, dtype: torch.dtype) -> None:
    codes = torch.randint(0, 1 << bits, (5, 13), generator=torch.Generator().manual_seed(0))
    found = unpack_bits(pack_bits(codes, bits).to(dtype), 13, bits)
    assert found.dtype == torch.uint8
    assert torch.equal(found, codes.to(torch.uint8))


def test_rows_with_too_few_bytes_are_refused_and_bytes_behind_the_codes_are_not_read() -> None:
    codes = torch.arange(8, dtype=torch.uint8).view(1, 8)
    packed = pack_bits(codes, 3)
    with pytest.raises(ValueError, match=r"\(1, 2\), expected \(R, 3\)"):
        unpack_bits(packed[:, :2], 8, 3)
    with pytest.raises(ValueError, match="shape"):
        unpack_bits(packed[0], 8, 3)
    with pytest.raises(ValueError, match="shape"):
        pack_bits(codes[0], 3)
    assert torch.equal(unpack_bits(torch.nn.functional.pad(packed, (0, 2), value=255), 8, 3), codes)
