import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoembed.budget import Footprint, format_bytes, parse_budget, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 * 2**20),
        ("8 MB", 8_000_000),
        ("8mb", 8_000_000),
        ("1.5 KiB", 1536),
        ("512", 512),
        (4096, 4096),
        ("3b", 3),
        ("0.1 GiB", 107374182),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1 MX", "1e6", "0", 0, -3, True, "1/16", "nan", "0.5"])
def test_what_is_no_positive_size_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1/16", 625), ("16x", 625), (" 1 / 3 ", 3333), ("1.5x", 6666), ("1KiB", 1024), (77, 77)],
)
def test_budgets_are_sizes_or_shares_of_full_precision(text: str | int, size: int) -> None:
    assert parse_budget(text, 10_000) == size


@pytest.mark.parametrize("text", ["0x", "1/0", "2/3", "1/20000"])
def test_a_budget_of_no_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"budget|size"):
        parse_budget(text, 10_000)


@pytest.mark.parametrize("text", ["50%", "1/4 KB", "-5KB", "2/3", 0.25, True])
def test_what_is_no_budget_is_told_how_to_write_one(text: str | int) -> None:
    with pytest.raises(ValueError, match=r"size.*; or write a share of full precision, 1/16 or 16x"):
        parse_budget(text, 10_000)


def test_a_budget_below_a_byte_is_told_with_the_bytes_that_it_shares() -> None:
    with pytest.raises(ValueError, match="'1/20000' of the 10000 bytes of full precision is less than one"):
        parse_budget("1/20000", 10_000)


@given(st.integers(1, 2**50))
def test_formatted_bytes_are_close_to_the_size(size: int) -> None:
    assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=1e-3)


def test_a_footprint_is_a_range() -> None:
    assert Footprint(3, 3).low_bytes == 3
    for low, high in [(4, 3), (-1, 3)]:
        with pytest.raises(ValueError, match="low <= high"):
            Footprint(low, high)
