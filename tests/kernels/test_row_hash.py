import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed_kernels.row_hash import reference, row_hash


@given(
    rows=st.lists(st.integers(0, 2**40), min_size=0, max_size=20),
    salt=st.integers(0, 2**16),
    buckets=st.integers(1, 2**32),
)
@settings(deadline=None, max_examples=50)
def test_torch_arithmetic_equals_exact_integers(rows: list[int], salt: int, buckets: int) -> None:
    hashed = row_hash(torch.tensor(rows, dtype=torch.int64), salt, buckets)
    assert hashed.tolist() == [reference(row, salt, buckets) for row in rows]


def test_salts_and_buckets_may_differ_by_row() -> None:
    rows = torch.tensor([5, 5, 9])
    hashed = row_hash(rows, torch.tensor([0, 1, 2]), torch.tensor([7, 7, 1000]))
    assert hashed.tolist() == [reference(5, 0, 7), reference(5, 1, 7), reference(9, 2, 1000)]


def test_consecutive_rows_spread_evenly_over_buckets() -> None:
    for salt in range(3):
        filled = torch.bincount(row_hash(torch.arange(100_000), salt, 100), minlength=100)
        chi_square = ((filled - 1000.0) ** 2 / 1000.0).sum()
        assert chi_square < 160  # 99 degrees of freedom: mean 99, six standard deviations are 84


def test_two_salts_collide_no_more_than_chance() -> None:
    rows = torch.arange(100_000)
    same = (row_hash(rows, 0, 1000) == row_hash(rows, 1, 1000)).sum()
    assert 40 < same < 160  # 100 expected, standard deviation 10


def test_rows_above_2_to_24_are_told_apart() -> None:
    rows = torch.arange(2**31, 2**31 + 1000)
    assert len(row_hash(rows, 0, 2**40).unique()) == 1000


def test_rows_of_32_bits_go_where_those_of_64_go() -> None:
    rows = torch.tensor([0, 5, 2**31 - 1])
    for salt in (3, torch.tensor([0, 1, 2])):
        assert torch.equal(row_hash(rows.int(), salt, 1000), row_hash(rows, salt, 1000))
