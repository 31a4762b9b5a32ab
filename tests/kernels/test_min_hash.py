import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.min_hash import (
    EMPTY,
    KEYS,
    element_hash,
    keys_of,
    lower_minima,
    reference,
    with_key,
)


def signatures(sets: list[set[int]], seed: int = 0) -> torch.Tensor:
    """As `reference`, the elements coming in any order and cut into two parts."""
    pairs = [(row, element) for row, elements in enumerate(sets) for element in elements]
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    pairs = [pairs[i] for i in order]
    found = torch.zeros(len(sets), dtype=torch.int64)
    for key in range(KEYS):
        minima = torch.full((len(sets),), EMPTY)
        for part in (pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]):
            rows = torch.tensor([row for row, _ in part], dtype=torch.int64)
            elements = torch.tensor([element for _, element in part], dtype=torch.int64)
            lower_minima(minima, rows, element_hash(elements, key))
        found = with_key(found, key, keys_of(minima, torch.arange(len(sets)), key))
    return found


def common_keys(first: int, second: int) -> int:
    return sum((first ^ second) >> (4 * k) & 15 == 0 for k in range(KEYS))


@given(
    st.lists(st.sets(st.integers(0, 2**40), max_size=5), min_size=1, max_size=6),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=50)
def test_signatures_equal_the_reference_in_any_order_of_the_elements(sets: list[set[int]], seed: int) -> None:
    found = signatures(sets, seed)
    assert [word % 2**64 for word in found.tolist()] == reference(sets)


def test_elements_above_24_and_31_bits_are_told_apart() -> None:
    for base in (2**24, 2**31, 2**40):
        words = reference([{base}, {base + 1}])
        assert words[0] != words[1]
        assert [w % 2**64 for w in signatures([{base}, {base + 1}]).tolist()] == words


def test_equal_sets_have_equal_signatures_and_empty_ones_different() -> None:
    equal = signatures([{5, 9, 2**33}, {2**33, 9, 5}, set(), set()]).tolist()
    assert equal[0] == equal[1]
    assert equal[2] != equal[3]


def test_keys_agree_as_often_as_the_similarity_says() -> None:
    generator = torch.Generator().manual_seed(0)
    for shared, own in ((10, 5), (5, 10), (0, 10)):
        similarity = shared / (shared + 2 * own)
        pairs = 150
        sets: list[set[int]] = []
        for _ in range(pairs):
            elements = torch.randint(0, 2**50, (shared + 2 * own,), generator=generator).tolist()
            sets += [set(elements[: shared + own]), set(elements[:shared] + elements[shared + own :])]
        words = [word % 2**64 for word in signatures(sets).tolist()]
        common = sum(common_keys(a, b) for a, b in zip(words[::2], words[1::2], strict=True))
        expected = similarity + (1 - similarity) / 16
        deviation = (expected * (1 - expected) / (pairs * KEYS)) ** 0.5
        assert abs(common / (pairs * KEYS) - expected) < 5 * deviation
