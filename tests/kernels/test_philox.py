import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.philox import philox, reference, row_words

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


def test_words_of_a_row_depend_on_seed_step_row_and_column_alone() -> None:
    rows = torch.tensor([5, 2**32 + 5, 0])
    block = row_words(2**40 + 9, 3, rows, 7)
    assert block.shape == (3, 7)
    assert torch.equal(row_words(2**40 + 9, 3, rows[1:2], 7)[0], block[1])
    assert torch.equal(row_words(2**40 + 9, 3, rows, 3), block[:, :3])
    for row, (low, high) in enumerate([(5, 0), (5, 1), (0, 0)]):
        expected = [reference((b, low, high, 3), (9, 2**8)) for b in range(2)]
        assert block[row].tolist() == [word for four in expected for word in four][:7]
    others = [row_words(2**40 + 10, 3, rows, 7), row_words(2**40 + 9, 4, rows, 7), block.roll(1, 0)]
    for other in others:
        assert not (other == block).any()
    assert row_words(1, 0, rows[:0], 5).shape == (0, 5)


def test_words_are_spread_evenly() -> None:
    drawn = row_words(1, 0, torch.arange(20_000), 4).flatten()
    # 80 thousand in 16 cells: five standard deviations of a cell's count are 342
    cells = torch.bincount(drawn >> 28, minlength=16)
    assert (cells - 5000).abs().max() < 342
