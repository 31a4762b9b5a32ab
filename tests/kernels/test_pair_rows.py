"""Pairs of rows while they train: C++ against torch, places against exact integers."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native

from autoembed_kernels.pair_rows import (
    PairedSegments,
    join_pairs,
    pair_places,
    torch_join_pairs,
    torch_pair_places,
)
from autoembed_kernels.pool_slots import pool_slots, torch_pool_slots
from autoembed_kernels.quotient_remainder import least_stored, multiplier, reference, remainder_rows
from autoembed_kernels.signature_pool import key_masks, signature_slots, torch_signature_slots

few = settings(deadline=None, max_examples=40)


@st.composite
def segments(draw: st.DrawFn) -> PairedSegments:
    """Segments with and without pairs behind one another, their stored rows, too."""
    columns, row, stored = [], 0, 0
    for _ in range(draw(st.integers(1, 5))):
        ids = draw(st.sampled_from([1, 4, 7, 100, 5000]))
        how = draw(st.integers(-1, 2)) if ids >= 4 else -1
        kept, numbers = ids, (1, 1, 1, 0)
        if how >= 0:
            kept = min(ids, least_stored(ids) + draw(st.integers(0, 9)))
            count = remainder_rows(ids, kept)
            numbers = (ids, multiplier(ids), count, kept - count)
        columns.append((row, stored, how, *numbers, draw(st.integers(1, 6))))
        row, stored = row + ids, stored + kept
    return PairedSegments(*torch.tensor(columns).T.contiguous().unbind(0), row)


def drawn(of: PairedSegments, count: int, seed: int) -> torch.Tensor:
    rows = torch.randint(0, of.rows, (count,), generator=torch.Generator().manual_seed(seed))
    return torch.cat([rows, rows[:1].expand(5 if count else 0), torch.tensor([0, of.rows - 1])])


@given(segments(), st.integers(0, 60), st.integers(0, 2**32))
@few
def test_places_are_those_of_torch_and_of_exact_integers(of: PairedSegments, count: int, seed: int) -> None:
    native()
    rows = drawn(of, count, seed)
    found, expected = pair_places(of, rows), torch_pair_places(of, rows)
    for name in ("stored", "paired", "how", "dim"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for p, n in enumerate(found.paired.tolist()):
        s = int((of.start <= rows[n]).sum()) - 1
        stored = int(of.quotients[s] + of.remainders[s])
        quotient, remainder = reference(int(rows[n] - of.start[s]), int(of.ids[s]), stored)
        assert found.stored[n] == of.first[s] + quotient
        assert found.stored[len(rows) + p] == of.first[s] + of.quotients[s] + remainder
    assert pair_places(of, rows[:0]).stored.shape == (0,)


@given(
    segments(), st.integers(0, 40), st.sampled_from([12, 13, 16]), st.integers(1, 3), st.integers(0, 2**32)
)
@few
def test_vectors_and_gradients_are_those_of_torch(
    of: PairedSegments, count: int, width: int, threads: int, seed: int
) -> None:
    native()
    pairs = pair_places(of, drawn(of, count, seed))
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(pairs.stored), width, generator=generator)
    lookups = len(values) - len(pairs.paired)
    # rows of pairs are zero from their dimension on
    column = torch.arange(width)
    for rows in (pairs.paired, torch.arange(lookups, len(values))):
        values[rows] *= column < pairs.dim.unsqueeze(1)
    gradient = torch.randn(lookups, width, generator=generator)
    made = []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for way in (join_pairs, torch_join_pairs):
            leaf = values.clone().requires_grad_()
            joined = way(leaf, pairs)
            (slope,) = torch.autograd.grad(joined, leaf, gradient)
            made.append((joined.detach(), slope))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0][0], made[1][0])
    # what lies behind a row's dimension has no values and needs no gradient
    live = torch.ones_like(values, dtype=torch.bool)
    for rows in (pairs.paired, torch.arange(lookups, len(values))):
        live[rows] = column < pairs.dim.unsqueeze(1)
    torch.testing.assert_close(made[0][1][live], made[1][1][live], rtol=0, atol=0)


@pytest.mark.parametrize("row", [-1, 3, 2**40])
def test_a_row_out_of_range_is_told(row: int) -> None:
    native()
    numbers = (torch.tensor([each]) for each in (0, 0, -1, 1, 1, 1, 0, 4))
    with pytest.raises(IndexError, match=f"row {row} at place 1 is out of range, there are 3"):
        pair_places(PairedSegments(*numbers, 3), torch.tensor([0, row]))


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**40), st.integers(0, 2**32))
@few
def test_slots_are_those_of_torch(count: int, blocks: int, block: int, more: int, seed: int) -> None:
    native()
    generator = torch.Generator().manual_seed(seed)
    slots = block + more
    words = torch.randint(-(2**63), 2**63 - 1, (count,), generator=generator)
    rows, fields = words & (2**32 - 1), torch.randint(0, 40, (count,), generator=generator)
    for field in (3, fields):
        of = (field, blocks, block, slots)
        assert torch.equal(pool_slots(rows, *of), torch_pool_slots(rows, *of))
    masks = key_masks(blocks)
    for held in (masks[2], masks[torch.randint(0, 8, (count,), generator=generator)]):
        found = signature_slots(words, held, block, slots)
        assert torch.equal(found, torch_signature_slots(words, held, block, slots))


def small_segments(**change: torch.Tensor) -> PairedSegments:
    """Seven rows of their own, and 100 in pairs of 10 and 10 stored rows."""
    columns = [(0, 0, -1, 1, 1, 1, 0, 4), (7, 7, 0, 100, 3, 10, 10, 4)]
    names = ("start", "first", "how", "ids", "multiplier", "remainders", "quotients", "dim")
    held = dict(zip(names, torch.tensor(columns).T.contiguous(), strict=True))
    return PairedSegments(**{**held, **change}, rows=107)


def test_pairs_in_whole_numbers_of_another_width_are_the_same() -> None:
    rows = torch.tensor([106, 3, 7, 50])
    expected = pair_places(small_segments(), rows)
    other = pair_places(small_segments(how=small_segments().how.int()), rows.int())
    for name in ("stored", "paired", "how", "dim"):
        assert torch.equal(getattr(other, name).long(), getattr(expected, name)), name
    values = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(join_pairs(values, other), join_pairs(values, expected))


def test_pairs_of_other_shapes_are_refused() -> None:
    rows = torch.tensor([106, 3, 7, 50])
    pairs, values = pair_places(small_segments(), rows), torch.zeros(7, 4)
    for call in (
        lambda: pair_places(small_segments(), rows.view(2, 2)),
        lambda: pair_places(small_segments(quotients=torch.zeros(1, dtype=torch.int64)), rows),
        lambda: join_pairs(values[:5], pairs),
        lambda: join_pairs(values[0], pairs),
        lambda: join_pairs(values, dataclasses.replace(pairs, dim=pairs.dim[:1])),
    ):
        with pytest.raises(ValueError, match=r"shape .* expected"):
            call()
