"""Codebooks against weighted distances worked out row by row, and codes that a segment can store."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoembed.joint import codebooks as codebooks_file
from autoembed.joint.codebooks import (
    CODE_BITS,
    Codebooks,
    FieldMetric,
    field_metric,
    fitted,
)
from autoembed.joint.sensitivity import Sensitivity

DIM = 6


def case(rows: int, seed: int, unseen: float = 0.0) -> tuple[torch.Tensor, Sensitivity]:
    """Rows of one field and what was measured at them; a share of the rows was never met."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, DIM, generator=generator)
    second = torch.rand(rows, DIM, generator=generator) * torch.linspace(3, 0.1, DIM)
    second[torch.rand(rows, generator=generator) < unseen] = 0.0
    root = torch.randn(DIM, DIM, generator=generator).double()
    return weight, Sensitivity(second, (root @ root.T).unsqueeze(0), (0,), 50, 0.0)


def codes_of(rows: torch.Tensor, shares: torch.Tensor, stored_rows: int) -> torch.Tensor:
    """Codes of all rows of a field in which every row counts by its share and dimensions are alike."""
    second = shares.unsqueeze(1).expand(-1, DIM).clone()
    alike = Sensitivity(second, torch.eye(DIM).double().unsqueeze(0), (0,), 50, 0.0)
    codes = Codebooks(rows, alike).codes(0, 0, len(rows), stored_rows)
    assert codes.dtype == torch.uint8
    return codes.long()


def lost(metric: FieldMetric, rows: torch.Tensor, codebook: torch.Tensor) -> float:
    """The weighted squared distance of every row to its nearest row of the codebook, in float64."""
    away = (codebook.double() - rows.double().unsqueeze(1)) @ metric.turned.double()  # (N, K, D)
    return float((metric.shares.double() * away.square().sum(2).min(1).values).sum())


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 60), seed=st.integers(0, 99), unseen=st.sampled_from([0.0, 0.5, 1.0]))
def test_distances_are_prices_with_the_means_of_sensitivities(rows, seed, unseen):
    _, sensitivity = case(rows, seed, unseen)
    metric = field_metric(sensitivity, 0)
    assert (metric.shares > 0).all() and metric.turned.isfinite().all()
    if unseen:
        return
    mean = sensitivity.second.mean(0).double()
    change = torch.randn(DIM, generator=torch.Generator().manual_seed(seed + 1)).double()
    u = mean.sqrt() * change
    expected = float(u @ sensitivity.correlation(0).double() @ u)
    assert float((change @ metric.turned.double()).square().sum()) == pytest.approx(expected, rel=1e-3)


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 200), seed=st.integers(0, 99))
def test_larger_codebooks_lose_less_and_no_codebook_more_than_the_mean(rows, seed):
    weight, sensitivity = case(rows, seed)
    metric = field_metric(sensitivity, 0)
    found = fitted(metric, weight, metric.shares, CODE_BITS)
    mean = (weight * metric.shares.unsqueeze(1)).sum(0) / metric.shares.sum()
    losses = [lost(metric, weight, mean.unsqueeze(0))]
    for bits in CODE_BITS:
        assert len(found[bits]) <= 1 << bits
        losses.append(lost(metric, weight, found[bits]))
        codes = metric.nearest(weight, found[bits])
        away = ((weight - found[bits][codes]) @ metric.turned).square().sum(1)
        assert float((metric.shares * away).sum()) == pytest.approx(losses[-1], rel=1e-3, abs=1e-4)
    for smaller, larger in itertools.pairwise(losses):
        assert larger <= smaller * 1.02 + 1e-6  # k-means is no optimum
    assert rows > 256 or losses[-1] == pytest.approx(0.0, abs=1e-4)


def test_clusters_that_lie_apart_are_found():
    generator = torch.Generator().manual_seed(3)
    centres = 10 * torch.randn(8, DIM, generator=generator)
    which = torch.randint(0, 8, (500,), generator=generator)
    rows = centres[which] + 0.01 * torch.randn(500, DIM, generator=generator)
    codes = codes_of(rows, torch.ones(500), 8)
    assert all(len(which[codes == code].unique()) == 1 for code in codes.unique())
    assert len(codes.unique()) == 8


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 400),
    distinct=st.integers(1, 60),
    bits=st.sampled_from(CODE_BITS),
    seed=st.integers(0, 99),
)
def test_rows_that_are_few_or_repeat_keep_what_they_are(rows, distinct, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(distinct, DIM, generator=generator)
    place = torch.randint(0, distinct, (rows,), generator=generator)
    stored = min(1 << bits, rows)
    codes = codes_of(values[place], torch.rand(rows, generator=generator), stored)
    assert codes.shape == (rows,) and int(codes.min()) >= 0 and int(codes.max()) < stored
    for value in place.unique().tolist():
        assert len(codes[place == value].unique()) == 1, "equal rows have one code"
    if len(place.unique()) <= stored:
        assert len(codes.unique()) == len(place.unique()), "and as many codes as there is room for"


def test_one_row_is_a_codebook_too():
    assert codes_of(torch.randn(3, DIM), torch.ones(3), 1).tolist() == [0, 0, 0]


def test_the_head_of_a_large_field_has_no_part_in_its_codebooks():
    weight, sensitivity = case(3000, 1)
    weight[:200] += 100.0
    for codebook in Codebooks(weight, sensitivity).of(0).values():
        assert codebook.abs().max() < 50.0


def test_a_segment_of_many_rows_is_coded_by_a_sample_and_the_same_way_again():
    weight, sensitivity = case(20_000, 2)
    metric = field_metric(sensitivity, 0)
    codes = Codebooks(weight, sensitivity).codes(0, 0, 20_000, 64).long()
    assert torch.equal(codes, Codebooks(weight, sensitivity).codes(0, 0, 20_000, 64).long())
    means = torch.stack([weight[codes == code].mean(0) for code in range(64)])
    away = ((weight - means[codes]) @ metric.turned).square().sum(1)
    whole = ((weight - weight.mean(0)) @ metric.turned).square().sum(1)
    assert float(away.mean()) < 0.5 * float(whole.mean())


def test_a_segment_has_a_codebook_of_its_own():
    """The last rows of a field lie apart: its codebook has few rows for them, theirs all."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(6000, DIM, generator=generator)
    rows[5900:] = 30 + 0.1 * torch.randn(100, DIM, generator=generator)
    alike = Sensitivity(torch.ones(6000, DIM), torch.eye(DIM).double().unsqueeze(0), (0,), 50, 0.0)
    codebooks = Codebooks(rows, alike)
    codes = codebooks.codes(0, 5900, 6000, 8).long()
    assert len(codes.unique()) == 8
    field = codebooks.metrics[0].nearest(rows[5900:], codebooks.of(0)[3])
    assert len(field.unique()) < 8

    def away(codes: torch.Tensor) -> float:
        return sum(float((part - part.mean(0)).square().sum()) for part in parts(codes))

    def parts(codes: torch.Tensor) -> list[torch.Tensor]:
        return [rows[5900:][codes == code] for code in codes.unique()]

    assert away(codes) < 0.9 * away(field)


def test_rounds_of_k_means_find_better_codebooks_than_splits_alone(monkeypatch):
    weight, sensitivity = case(2000, 5)
    metric = field_metric(sensitivity, 0)
    found = fitted(metric, weight, metric.shares, (6,))[6]
    monkeypatch.setattr(codebooks_file, "ROUNDS", 0)
    split = fitted(metric, weight, metric.shares, (6,))[6]
    assert lost(metric, weight, found) < 0.97 * lost(metric, weight, split)
