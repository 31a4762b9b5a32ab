import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.bitpack import packed_row_bytes
from autoembed_kernels.gather_packed import (
    BF16,
    FP16,
    FP32,
    INTEGER,
    PackedSegments,
    as_words,
    gather_packed,
    reference_gather_packed,
)

VALUE_BITS = {FP16: 16, BF16: 16, FP32: 32}


def build(
    layouts: list[tuple[int, int, int, int]], front: int, width: int, generator: torch.Generator
) -> tuple[torch.Tensor, PackedSegments]:
    """(kind, bits, dim, rows) of each segment -> a payload with random finite numbers, and its segments."""
    parts, base, row_bytes = [], [], []
    at = 0
    for kind, bits, dim, rows in layouts:
        size = packed_row_bytes(dim, VALUE_BITS.get(kind, bits))
        body = torch.randint(0, 256, (rows, size), generator=generator, dtype=torch.uint8)
        if kind == FP16:
            body = torch.randn(rows, dim, generator=generator).half().view(torch.uint8)
        elif kind == BF16:
            body = torch.randn(rows, dim, generator=generator).bfloat16().view(torch.uint8)
        elif kind == FP32:
            body = torch.randn(rows, dim, generator=generator).view(torch.uint8)
        elif front:
            numbers = torch.rand(rows, front // 2, generator=generator).half().view(torch.uint8)
            body = torch.cat([numbers, body], dim=1)
        base.append(at)
        row_bytes.append(body.shape[1])
        parts.append(body.flatten())
        at += body.numel()
    count = len(layouts)
    kinds = [kind for kind, _, _, _ in layouts]
    shift = [
        0.0 if kind != INTEGER or front == 4 else -(1 << (bits - 1)) + 0.5 for kind, bits, _, _ in layouts
    ]
    return torch.cat(parts), PackedSegments(
        base=torch.tensor(base),
        row_bytes=torch.tensor(row_bytes),
        dim=torch.tensor([dim for _, _, dim, _ in layouts]),
        bits=torch.tensor([bits for _, bits, _, _ in layouts]),
        kind=torch.tensor(kinds, dtype=torch.uint8),
        front=torch.tensor([front if kind == INTEGER else 0 for kind in kinds]),
        shift=torch.tensor(shift),
        scale=torch.rand(count, generator=generator),
        offset=torch.arange(count) % 2,
        offsets=torch.randn(2, width, generator=generator),
        kinds=tuple(sorted(set(kinds))),
        row_scales=front >= 2,
        row_biases=front == 4,
        any_narrow=any(dim < width for _, _, dim, _ in layouts),
        any_offset=True,
        width=width,
    )


def check(layouts: list[tuple[int, int, int, int]], front: int, width: int, lookups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    payload, segments = build(layouts, front, width, generator)
    segment = torch.randint(0, len(layouts), (lookups,), generator=generator)
    rows = torch.tensor([rows for _, _, _, rows in layouts])[segment]
    row = (torch.rand(lookups, generator=generator) * rows).long()
    expected = reference_gather_packed(payload, segments, segment, row)
    values = gather_packed(as_words(payload, segments.width), segments, segment, row)
    assert values.shape == (lookups, width) and values.dtype == torch.float32
    # the bound of the docstring: |c + shift| * scale <= 256 here, |offset| < 8
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=3 * 2.0**-24 * 264)


layout = st.tuples(
    st.sampled_from([INTEGER, INTEGER, FP16, BF16, FP32]),
    st.integers(1, 8),
    st.integers(1, 11),
    st.integers(1, 6),
)


@given(
    st.lists(layout, min_size=1, max_size=6),
    st.sampled_from([0, 2, 4]),
    st.integers(11, 18),
    st.integers(0, 30),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=50)
def test_mixed_segments_read_as_the_reference(
    layouts: list[tuple[int, int, int, int]], front: int, width: int, lookups: int, seed: int
) -> None:
    check(layouts, front, width, lookups, seed)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dim", [1, 7, 8, 17])
def test_every_width_reads_its_last_row(bits: int, dim: int) -> None:
    # the words of the last row reach past the end of the payload
    check([(INTEGER, bits, dim, 1)], 0, 17, 3, seed=bits)


def test_addresses_beyond_two_to_the_31_do_not_wrap() -> None:
    # rows from 2^33 on, seen through a base that lies as far before the payload
    payload, segments = build([(INTEGER, 8, 1, 4)], 0, 1, torch.Generator().manual_seed(0))
    far = 2**33
    moved = PackedSegments(**{**vars(segments), "base": segments.base - far * segments.row_bytes})
    words, row, zero = as_words(payload, 1), torch.arange(4), torch.zeros(4, dtype=torch.int64)
    near = gather_packed(words, segments, zero, row)
    assert torch.equal(gather_packed(words, moved, zero, row + far), near)


def test_segments_without_rows_read_zero_and_need_no_payload() -> None:
    _, segments = build([(FP32, 8, 1, 1)], 0, 5, torch.Generator().manual_seed(0))
    nothing = PackedSegments(**{**vars(segments), "dim": torch.tensor([0]), "kinds": (), "any_narrow": True})
    zero = torch.zeros(3, dtype=torch.int64)
    values = gather_packed(as_words(torch.zeros(0, dtype=torch.uint8), 5), nothing, zero, zero)
    assert torch.equal(values, torch.zeros(3, 5))


def test_columns_past_the_dimension_are_zero_where_the_next_row_is_not_a_number() -> None:
    rows = torch.tensor([[1.0], [float("nan")]])
    _, segments = build([(FP32, 8, 1, 2)], 0, 3, torch.Generator().manual_seed(0))
    zero = torch.zeros(1, dtype=torch.int64)
    values = gather_packed(as_words(rows.view(torch.uint8).flatten(), 3), segments, zero, zero)
    assert values.tolist() == [[1.0, 0.0, 0.0]]


def test_look_ups_of_32_bits_are_those_of_64_and_shapes_must_fit() -> None:
    payload, segments = build([(INTEGER, 3, 5, 4), (FP32, 8, 7, 2)], 0, 7, torch.Generator().manual_seed(0))
    words, segment, row = as_words(payload, 7), torch.tensor([0, 1, 0]), torch.tensor([3, 1, 0])
    expected = gather_packed(words, segments, segment, row)
    assert torch.equal(gather_packed(words, segments, segment.int(), row.int()), expected)
    for wrong in (
        (words, segments, segment[:2], row),
        (words, segments, segment.view(1, 3), row.view(1, 3)),
        (words, segments, segment.float(), row),
        (words.view(torch.uint8), segments, segment, row),
    ):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            gather_packed(*wrong)
