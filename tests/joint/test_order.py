"""The learned order against Python's sort, and what groups and statistics make of it."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.data.row_order import RowOrder
from autoembed.joint.groups import Group, groups_of
from autoembed.joint.order import FIRST, WIDER, learned_order
from autoembed.joint.sensitivity import Sensitivity
from autoembed.stats import FieldStats, Stats

pytestmark = pytest.mark.usefixtures("one_thread")

DIM = 3
COUNTS = st.sampled_from([0, 1, 2, 3, 4, 5, 16, 256, 4**12])  # many ties, and rows without a look-up


@st.composite
def fields(draw: st.DrawFn, least: int = 0) -> FieldStats:
    """A field whose counts never increase behind row 0."""
    counts = draw(st.lists(COUNTS, min_size=least, max_size=20))
    row_0 = draw(st.integers(0, 1000))
    return FieldStats("field", np.array([row_0, *sorted(counts, reverse=True)]), draw(st.booleans()))


def whole_numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).float()


def measured(stats: Stats, seed: int) -> tuple[torch.Tensor, Sensitivity]:
    """Rows of all fields, and a gram of each: small whole numbers and a trace that is a power of two, so that
    what a row holds is exact however it is summed and scaled, and often that of another."""
    factors = whole_numbers(seed + 1, len(stats.fields), DIM, DIM).double()
    grams = factors @ factors.transpose(1, 2)
    for gram in grams:
        trace = int(gram.trace())
        gram[0, 0] += (1 << (trace - 1).bit_length()) - trace if trace else 0
    rows = whole_numbers(seed, stats.rows, DIM)
    return rows, Sensitivity(torch.zeros(stats.rows, DIM), grams, stats.first_rows, 50, 0.0)


def slow_order(rows: list[list[float]], gram: list[list[float]], counts: list[int], first: int) -> list[int]:
    """Row 0, then window by window Python's sort, which keeps ties as they stand."""

    def held(row: int) -> float:
        apart = [ours - base for ours, base in zip(rows[row], rows[0], strict=True)]
        products = itertools.product(range(DIM), repeat=2)
        return counts[row] * sum(apart[i] * gram[i][j] * apart[j] for i, j in products)

    found, left, width = [0], list(range(1, len(rows))), first
    while left:
        found += sorted(left[:width], key=lambda row: -held(row))
        left, width = left[width:], WIDER * width
    return found


def expected_orders(
    rows: torch.Tensor, sensitivity: Sensitivity, stats: Stats, first: int = 2
) -> list[list[int]]:
    parts = torch.split(rows, [field.rows for field in stats.fields])
    grams = sensitivity.field_gram.tolist()
    return [
        slow_order(part.tolist(), gram, field.counts.tolist(), first)
        for part, gram, field in zip(parts, grams, stats.fields, strict=True)
    ]


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields of a few rows have several windows."""
    monkeypatch.setattr("autoembed.joint.order.FIRST", 2)


def listed(order: RowOrder) -> list[list[int]]:
    assert all(rows.dtype == np.int32 for rows in order.rows)
    return [rows.tolist() for rows in order.rows]


@pytest.mark.parametrize("together", [1, 3, 1 << 18])
@settings(deadline=None, max_examples=60)
@given(
    some=st.lists(fields(), min_size=1, max_size=4),
    first=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 10_000),
)
def test_rows_of_a_window_are_sorted_by_what_they_hold_and_ties_stay(
    together: int, some: list[FieldStats], first: int, seed: int
) -> None:
    stats = Stats(tuple(some))
    rows, sensitivity = measured(stats, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoembed.joint.order._TOGETHER", together)
        patch.setattr("autoembed.joint.order.FIRST", first)
        found = listed(learned_order(rows, sensitivity, stats))
    assert found == expected_orders(rows, sensitivity, stats, first)


def test_windows_are_of_ranks_each_so_many_times_as_wide_as_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    counts = np.append(9, np.full(400, 5))
    rows = torch.arange(401.0).unsqueeze(1)
    sensitivity = Sensitivity(torch.zeros(401, 1), torch.ones(1, 1, 1, dtype=torch.float64), (0,), 50, 0.0)
    order = learned_order(rows, sensitivity, Stats((FieldStats("field", counts),)))
    ends = [FIRST, FIRST * (1 + WIDER), FIRST * (1 + WIDER + WIDER**2), 400]
    assert ends[:3] == [8, 40, 168]
    windows = [range(end, start, -1) for start, end in itertools.pairwise([0, *ends])]
    assert listed(order) == [[0, *itertools.chain(*windows)]]


def test_a_small_order_is_as_worked_by_hand() -> None:
    """e_r = n_r d_r^2 in one dimension, from row 0 at 1; windows of ranks 1 to 2, 3 to 10."""
    counts = np.array([7, 16, 15, 8, 4, 3, 3, 1, 0])
    rows = torch.tensor([[1.0], [1.0], [2.0], [-1.0], [4.0], [0.0], [5.0], [9.0], [99.0]])
    #                      e_r:  0      15  |    32,    36,     3,    48,    64,     0
    gram = torch.ones(1, 1, 1, dtype=torch.float64)
    sensitivity = Sensitivity(torch.zeros(9, 1), gram, (0,), 50, 0.0)
    order = learned_order(rows, sensitivity, Stats((FieldStats("field", counts),)))
    assert listed(order) == [[0, 2, 1, 7, 6, 4, 3, 5, 8]]


@settings(deadline=None, max_examples=40)
@given(st.lists(fields(), min_size=1, max_size=4), st.integers(0, 10_000))
def test_rows_that_are_worth_nothing_stay_by_frequency(some: list[FieldStats], seed: int) -> None:
    stats = Stats(tuple(some))
    rows, seen = measured(stats, seed)
    unseen = Sensitivity(seen.second, torch.zeros_like(seen.field_gram), seen.first_rows, 0, 0.0)
    alike = torch.ones_like(rows)
    by_frequency = [list(range(field.rows)) for field in stats.fields]
    assert listed(learned_order(rows, unseen, stats)) == by_frequency
    assert listed(learned_order(alike, seen, stats)) == by_frequency


@settings(deadline=None, max_examples=30)
@given(st.lists(fields(), min_size=2, max_size=4), st.integers(0, 10_000), st.data())
def test_rows_of_a_field_without_ranks_stay_and_others_are_sorted_as_beside_any(
    some: list[FieldStats], seed: int, drawn: st.DataObject
) -> None:
    number = drawn.draw(st.integers(0, len(some) - 1))
    counts = np.array(drawn.draw(st.permutations(some[number].counts.tolist())))
    some[number] = FieldStats("hashed", counts, ranked=False)
    stats = Stats(tuple(some))
    rows, sensitivity = measured(stats, seed)
    expected = expected_orders(rows, sensitivity, stats)
    expected[number] = list(range(len(counts)))
    assert listed(learned_order(rows, sensitivity, stats)) == expected


def test_fields_of_one_and_two_rows_have_one_order() -> None:
    stats = Stats(tuple(FieldStats(str(size), np.arange(size)[::-1] + 1) for size in (1, 2, 1)))
    rows, sensitivity = measured(stats, 0)
    assert listed(learned_order(rows, sensitivity, stats)) == [[0], [0, 1], [0]]


@pytest.mark.parametrize("exponent", [-60, 60, 300])
def test_an_order_does_not_depend_on_how_many_examples_a_gram_sums_or_how_steep_they_are(
    exponent: int,
) -> None:
    """Float32 would hold neither the largest nor the products of the smallest."""
    stats = Stats((FieldStats("field", np.array([0, *[5] * 20])), FieldStats("other", np.arange(30)[::-1])))
    rows, seen = measured(stats, 3)
    scaled = Sensitivity(seen.second, seen.field_gram * 2.0**exponent, seen.first_rows, 50, 0.0)
    expected = expected_orders(rows, seen, stats)
    assert listed(learned_order(rows, scaled, stats)) == expected != [list(range(21)), list(range(30))]


def some_order(sizes: Sequence[int], seed: int) -> RowOrder:
    random = np.random.default_rng(seed)
    return RowOrder(tuple(np.append(0, 1 + random.permutation(n - 1)).astype(np.int32) for n in sizes))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(fields(), st.integers(1, 40)), min_size=1, max_size=3),
    st.integers(0, 10_000),
    st.sampled_from([0.02, 0.1, 1.0]),
)
def test_groups_are_those_of_rows_by_frequency_whatever_the_order(
    some: list[tuple[FieldStats, int]], seed: int, largest: float
) -> None:
    """Also of long fields, whose ties move boundaries."""
    stats = Stats(
        tuple(
            FieldStats("field", np.append(field.counts[:1], np.repeat(field.counts[1:], longer)), field.bag)
            for field, longer in some
        )
    )
    order = some_order([field.rows for field in stats.fields], seed)
    assert groups_of(stats.reordered(order), largest=largest) == groups_of(stats, largest=largest)


def test_groups_that_ties_move_are_those_of_rows_by_frequency() -> None:
    counts = np.concatenate([[5], np.repeat([90, 40, 7, 2, 1], [3, 9, 50, 200, 9738])])
    stats = Stats((FieldStats("items", counts), FieldStats("lone", np.array([3]))))
    groups = groups_of(stats, largest=0.02)
    assert {13, 63} <= {group.start for group in groups}
    for order in (some_order([10_001, 1], 0), some_order([10_001, 1], 1)):
        assert groups_of(stats.reordered(order), largest=0.02) == groups


def test_groups_are_also_those_by_frequency_where_only_the_first_ids_changed_places() -> None:
    stats = Stats((FieldStats("items", np.array([5, 9, *[3] * 98])),))
    swapped = RowOrder((np.array([0, 2, 1, *range(3, 100)], np.int32),))
    groups = groups_of(stats, largest=0.02)
    assert groups[1:3] == (Group(0, 1, 2), Group(0, 2, 4))
    assert groups_of(stats.reordered(swapped), largest=0.02) == groups
