import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.philox import philox, reference, row_chances

WORD = st.integers(0, 2**32 - 1)

# published with the generator: counter, key, words
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def words(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in counter)
    return tuple(int(word) for word in philox((c0, c1, c2, c3), key[0] | key[1] << 32))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert reference(counter, key) == expected
    assert words(counter, key) == expected


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
@settings(deadline=None, max_examples=50)
def test_words_equal_the_reference(counter: tuple[int, int, int, int], key: tuple[int, int]) -> None:
    assert words(counter, key) == reference(counter, key)


def test_chances_of_a_row_depend_on_seed_step_row_and_column_alone() -> None:
    rows = torch.tensor([5, 2**32 + 5, 0])
    block = row_chances(2**40 + 9, 3, rows, 13)
    assert block.shape == (3, 13)
    assert torch.equal(row_chances(2**40 + 9, 3, rows[1:2], 13)[0], block[1])
    assert torch.equal(row_chances(2**40 + 9, 3, rows, 3), block[:, :3])
    for row, (low, high) in enumerate([(5, 0), (5, 1), (0, 0)]):
        words = [word for b in range(2) for word in reference((b, low, high, 3), (9, 2**8))]
        halves = [half for word in words for half in (word % 2**16, word // 2**16)]
        assert block[row].tolist() == halves[:13]
    others = [row_chances(2**40 + 10, 3, rows, 13), row_chances(2**40 + 9, 4, rows, 13), block.roll(1, 0)]
    for other in others:
        assert (other == block).sum() <= 1  # two numbers of 16 bits are equal once in 65,536
    assert row_chances(1, 0, rows[:0], 5).shape == (0, 5)


@pytest.mark.parametrize("shift", [0, 12])
def test_chances_are_spread_evenly(shift: int) -> None:
    drawn = row_chances(1, 0, torch.arange(20_000), 4)
    # 80 thousand in 16 cells, by first or last bits: five standard deviations of a cell's count are 342
    cells = torch.bincount(drawn.flatten() >> shift & 15, minlength=16)
    assert (cells - 5000).abs().max() < 342
    # neither halves of a word nor words correlate: four standard deviations
    centred = drawn.double() / 65536 - 0.5
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs((centred[:, a] * centred[:, b]).mean()) < 4 / 12 / 20_000**0.5
