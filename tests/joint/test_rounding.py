"""Rounding of a row's columns together: a slow reference, rounding to nearest, ends of grids, no rows."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.joint.rounding import RIDGE, carried, rounded_together
from autoembed_kernels.lsq import Grid


def metric_of(dim: int, rank: int, generator: torch.Generator) -> torch.Tensor:
    """Gradients of look-ups that point to few directions, columns of very different sizes."""
    directions = torch.randn(4 * dim, rank, generator=generator) @ torch.randn(rank, dim, generator=generator)
    directions += 0.1 * torch.randn(4 * dim, dim, generator=generator)
    directions *= torch.logspace(0, -1, dim)
    return directions.T @ directions


def nearest(value: float, step: float, grid: Grid) -> float:
    codes = [grid.shift + code for code in range(grid.lowest, grid.highest + 1)]
    return min((code * step for code in codes), key=lambda stored: abs(stored - value))


def stored_of(rows: torch.Tensor, parts) -> torch.Tensor:
    """Every column rounded to nearest."""
    out = torch.zeros_like(rows)
    columns = [(step, grid) for width, step, grid in parts for _ in range(width)]
    for row, (j, (step, grid)) in itertools.product(range(len(rows)), enumerate(columns)):
        out[row, j] = nearest(float(rows[row, j]), step, grid)
    return out


def slow(rows: torch.Tensor, parts, metric: torch.Tensor) -> torch.Tensor:
    """What is stored: column by column, the rest of the row moved to where the loss is least, by solving."""
    dim = rows.shape[1]
    metric = metric.double() + (RIDGE * metric.diagonal().double()).diag()
    columns = [(step, grid) for width, step, grid in parts for _ in range(width)]
    out = torch.zeros_like(rows)
    for row in range(len(rows)):
        delta = torch.zeros(dim, dtype=torch.float64)  # what fixed columns read less what they held
        for j in range(dim - 1, -1, -1):
            if j >= len(columns):
                delta[j] = -rows[row, j].double()
                continue
            free, fixed = slice(0, j + 1), slice(j + 1, dim)
            # d/d(free) of delta^T M delta = 0
            best = torch.linalg.solve(metric[free, free], -metric[free, fixed] @ delta[fixed])
            out[row, j] = nearest(float(rows[row, j] + best[j]), *columns[j])
            delta[j] = out[row, j].double() - rows[row, j].double()
    return out


@st.composite
def cases(draw):
    dim = draw(st.integers(1, 7))
    count = draw(st.integers(0, 5))
    parts, left = [], dim
    for bits in draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)):
        if left == 0:
            break
        width = draw(st.integers(1, left))
        parts.append((width, draw(st.sampled_from([0.02, 0.1, 0.5])), Grid(bits, mid_rise=bits <= 2)))
        left -= width
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rows = torch.randn(count, dim, generator=generator) * draw(st.sampled_from([0.01, 0.1, 1.0]))
    return rows, parts, metric_of(dim, draw(st.integers(1, dim)), generator)


def losses(stored: torch.Tensor, rows: torch.Tensor, metric: torch.Tensor) -> torch.Tensor:
    changes = (stored - rows).double()
    return (changes @ metric.double() * changes).sum(1)


def together(rows: torch.Tensor, parts, metric: torch.Tensor) -> torch.Tensor:
    return rounded_together(rows, parts, metric, carried(metric))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_it_loses_what_solving_column_by_column_loses_or_rounding_to_nearest_where_that_is_less(case):
    rows, parts, metric = case
    found = together(rows, parts, metric)
    assert found.shape == rows.shape
    stored = stored_of(found, parts)
    alone = losses(stored_of(rows, parts), rows, metric)
    best = torch.minimum(losses(slow(rows, parts, metric), rows, metric), alone)
    lost = losses(stored, rows, metric)
    slack = 1e-4 * best + 1e-9 * metric.diagonal().sum().double()
    assert (lost <= alone + slack).all()
    # a value right between two codes may go either way, and takes the columns before it along
    assert ((lost - best).abs() <= slack).sum() >= len(rows) - 1
    assert not found[:, sum(width for width, _, _ in parts) :].any()


def test_what_is_stored_stays_where_a_row_moves_a_little():
    generator = torch.Generator().manual_seed(3)
    rows, metric = torch.randn(500, 8, generator=generator) * 0.1, metric_of(8, 2, generator)
    parts = [(3, 0.05, Grid(4)), (5, 0.2, Grid(2, mid_rise=True))]
    found = together(rows, parts, metric)
    changed = (found != rows).any(1)
    assert changed.double().mean() > 0.5
    for sign in (-1.0, 1.0):
        moved = found[changed] + sign * 0.04 * torch.tensor([0.05] * 3 + [0.2] * 5)
        assert torch.equal(stored_of(moved, parts), stored_of(found[changed], parts))


def test_the_loss_is_less_than_that_of_rounding_to_nearest():
    generator = torch.Generator().manual_seed(5)
    metric = metric_of(16, 3, generator)
    rows = torch.randn(2000, 16, generator=generator) * 0.1
    for parts in (
        [(16, 0.1, Grid(2, mid_rise=True))],
        [(8, 0.03, Grid(4)), (8, 0.15, Grid(1, mid_rise=True))],
        [(4, 0.03, Grid(4))],
    ):
        lost = losses(stored_of(together(rows, parts, metric), parts), rows, metric).sum()
        assert lost < 0.8 * losses(stored_of(rows, parts), rows, metric).sum()


def test_a_diagonal_metric_and_no_metric_round_to_nearest():
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    parts = [(8, 0.2, Grid(4))]
    for metric in (torch.rand(8).add(0.1).diag(), torch.zeros(8, 8)):
        assert not carried(metric).any()
        assert torch.equal(together(rows, parts, metric), rows)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_metric_without_full_rank_is_no_trouble(rank):
    generator = torch.Generator().manual_seed(2)
    directions = torch.randn(5, rank, generator=generator) @ torch.randn(rank, 8, generator=generator)
    metric = directions.T @ directions
    rows = torch.randn(100, 8, generator=generator)
    parts = [(8, 0.4, Grid(3))]
    lost = losses(stored_of(together(rows, parts, metric), parts), rows, metric)
    alone = losses(stored_of(rows, parts), rows, metric)
    assert lost.isfinite().all() and lost.sum() < 0.95 * alone.sum()


def test_no_rows_and_rows_of_zeros_are_no_trouble():
    metric = metric_of(8, 2, torch.Generator().manual_seed(4))
    for parts in ([(8, 0.1, Grid(1, mid_rise=True))], [(4, 0.1, Grid(4))]):
        assert together(torch.zeros(0, 8), parts, metric).shape == (0, 8)
        rows = torch.zeros(3, 8)
        found = stored_of(together(rows, parts, metric), parts)
        alone = losses(stored_of(rows, parts), rows, metric)
        assert (losses(found, rows, metric) <= alone).all()


def test_a_metric_without_a_root_rounds_to_nearest():
    for metric in (torch.full((4, 4), float("nan")), -torch.eye(4), torch.full((4, 4), float("inf"))):
        assert not carried(metric).any()
