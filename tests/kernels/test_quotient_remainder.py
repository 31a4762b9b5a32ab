import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.quotient_remainder import (
    largest_term,
    least_stored,
    multiplier,
    quotient_remainder,
    reference,
    remainder_rows,
)


def pairs(place: torch.Tensor, ids: int, stored: int) -> tuple[torch.Tensor, torch.Tensor]:
    return quotient_remainder(place, ids, multiplier(ids), remainder_rows(ids, stored))


@given(st.integers(4, 400), st.integers(0, 400))
@settings(deadline=None, max_examples=50)
def test_pairs_are_distinct_and_in_range(ids: int, more: int) -> None:
    stored = min(least_stored(ids) + more, ids)
    count = remainder_rows(ids, stored)
    quotient, remainder = pairs(torch.arange(ids), ids, stored)
    assert len(set(zip(quotient.tolist(), remainder.tolist(), strict=True))) == ids
    assert int(quotient.min()) >= 0 and int(quotient.max()) < stored - count
    assert int(remainder.min()) >= 0 and int(remainder.max()) < count


@given(st.integers(1, 2**32 - 1), st.integers(0, 2**20))
@settings(deadline=None, max_examples=50)
def test_the_remainder_rows_are_the_fewest_that_tell_all_ids_apart(ids: int, more: int) -> None:
    least = least_stored(ids)
    assert (least // 2) * (least - least // 2) >= ids
    assert ((least - 1) // 2) * (least - 1 - (least - 1) // 2) < ids
    stored = least + more
    count = remainder_rows(ids, stored)
    assert count * (stored - count) >= ids and count <= stored - count
    assert count == 1 or (count - 1) * (stored - count + 1) < ids
    with pytest.raises(ValueError, match=f"at least {least}"):
        remainder_rows(ids, least - 1)


@pytest.mark.parametrize("collisions", [3, 4, 60, 5793])
def test_a_million_ids_above_two_to_the_24_have_distinct_pairs(collisions: int) -> None:
    ids = 2**25 + 12_345
    stored = -(-ids // collisions) + collisions
    assert remainder_rows(ids, stored) <= collisions
    place = torch.arange(ids - 1_000_000, ids)
    assert int(place.min()) > 2**24
    quotient, remainder = pairs(place, ids, stored)
    assert len((quotient * ids + remainder).unique()) == len(place)
    # the same in float32, as published code divides: pairs are lost
    permuted = place * multiplier(ids) % ids
    count = remainder_rows(ids, stored)
    wrong = (permuted.float() / count).long()
    assert (wrong != quotient).any()


def test_integers_are_exact_up_to_the_largest_number_of_ids_of_the_format() -> None:
    ids = 2**32 - 1
    stored = least_stored(ids) + 7
    place = torch.tensor([0, 1, 2**24 + 1, 2**31, 2**32 - 3, 2**32 - 2])
    quotient, remainder = pairs(place, ids, stored)
    expected = [reference(one, ids, stored) for one in place.tolist()]
    assert list(zip(quotient.tolist(), remainder.tolist(), strict=True)) == expected
    assert multiplier(ids) * (ids - 1) < 2**63


@pytest.mark.parametrize(
    ("ids", "collisions"), [(1000, 4), (1024, 4), (100_003, 10), (65_536, 16), (10_131_226, 60)]
)
def test_the_most_frequent_ids_meet_in_no_quotient_row(ids: int, collisions: int) -> None:
    stored = -(-ids // collisions) + collisions
    count = remainder_rows(ids, stored)
    term = largest_term(multiplier(ids), ids)
    assert term <= 6
    head = (stored - count) // (term + 2)
    quotient, _ = pairs(torch.arange(head), ids, stored)
    assert len(quotient.unique()) == head
    # in rank order, c ids of each would share one
    assert len((torch.arange(head) // count).unique()) == math.ceil(head / count)


def test_tables_of_several_sizes_are_addressed_in_one_call() -> None:
    sizes = [(9, 6), (200, 40), (2**30, 2**20)]
    columns = [
        torch.tensor(c)
        for c in zip(*[(n, multiplier(n), remainder_rows(n, s)) for n, s in sizes], strict=True)
    ]
    place = torch.tensor([8, 123, 2**29 + 3])
    quotient, remainder = quotient_remainder(place, *columns)
    expected = [reference(p, n, s) for p, (n, s) in zip(place.tolist(), sizes, strict=True)]
    assert list(zip(quotient.tolist(), remainder.tolist(), strict=True)) == expected


def test_no_place_gives_no_pair() -> None:
    quotient, remainder = pairs(torch.zeros(0, dtype=torch.int64), 9, 6)
    assert len(quotient) == len(remainder) == 0
