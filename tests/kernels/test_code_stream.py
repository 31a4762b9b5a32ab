import torch
from hypothesis import given
from hypothesis import strategies as st

from autoembed_kernels.bitpack import pack_bits
from autoembed_kernels.code_stream import PAD, code_bits, code_bytes, read_codes, reference


@given(st.integers(1, 256), st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**31))
def test_codes_are_read_as_bit_by_bit_and_as_they_were_packed(rows, count, before, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, rows, (count,), generator=generator)
    bits = code_bits(rows)
    packed = pack_bits(codes.view(1, -1), bits).flatten()
    assert len(packed) == code_bytes(count, rows)
    noise = torch.randint(0, 256, (before,), generator=generator).to(torch.uint8)
    stream = torch.cat([noise, packed, torch.full((PAD,), 255, dtype=torch.uint8)])
    place = torch.randint(0, count, (30,), generator=generator)
    at, width = torch.full_like(place, before), torch.full_like(place, bits)
    read = read_codes(stream, at, width, place)
    assert read.tolist() == codes[place].tolist()
    raw = bytes(stream.tolist())
    assert read.tolist() == [reference(raw, before, bits, p) for p in place.tolist()]


def test_no_bits_read_nothing_whatever_the_place():
    stream = torch.zeros(1 + PAD, dtype=torch.uint8)
    zeros, far = torch.zeros(3, dtype=torch.int64), torch.tensor([0, 7, 10**12])
    assert read_codes(stream, far, zeros, far).tolist() == [0, 0, 0]
    assert read_codes(stream, far[:0], zeros[:0], far[:0]).tolist() == []


def test_a_code_has_the_bits_that_its_codebook_needs():
    assert [code_bits(rows) for rows in (1, 2, 3, 4, 5, 129, 256)] == [1, 1, 2, 2, 3, 8, 8]
    assert [code_bytes(3, rows) for rows in (1, 2, 256)] == [1, 1, 3]
