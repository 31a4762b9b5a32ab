"""Prices against their definition, worked row by row, and the orders that they must keep."""

from dataclasses import dataclass

import pytest
import torch

from autoembed.joint import prices as prices_file
from autoembed.joint.codebooks import Codebooks
from autoembed.joint.plan_reader import PlanReader
from autoembed.joint.prices import price
from autoembed.joint.sensitivity import Sensitivity
from autoembed.joint.stored_values import GroupRows
from autoembed_kernels.row_hash import reference

DIM = 8


@dataclass(frozen=True)
class Group:
    field: int
    start: int
    stop: int


@dataclass(frozen=True)
class Choice:
    sharing: str
    ratio: float = 1.0
    dim: int = DIM
    precision: str = "fp32"
    parts: tuple[tuple[int, str], ...] = ()
    code_bits: int = 0


def case(rows: tuple[int, ...] = (40, 61), seed: int = 1) -> tuple[torch.Tensor, Sensitivity]:
    generator = torch.Generator().manual_seed(seed)
    total = sum(rows)
    weight = torch.randn(total, DIM, generator=generator) * torch.linspace(2, 0.2, DIM)
    second = torch.rand(total, DIM, generator=generator) * 3
    gram = torch.stack([(m := torch.randn(DIM, DIM, generator=generator).double()) @ m.T for _ in rows])
    return weight, Sensitivity(second, gram, (0, rows[0]), 50, 0.0)


def read(weight: torch.Tensor, sensitivity: Sensitivity, group: Group, choice: Choice) -> torch.Tensor:
    first = sensitivity.first_rows[group.field]
    rows = torch.arange(first + group.start, first + group.stop)
    plan = torch.zeros(1, 1, dtype=torch.int64)
    return PlanReader(weight, sensitivity, [group]).read([choice], plan, rows)[0]


MENU = [
    Choice(sharing, ratio, dim, precision)
    for sharing, ratio in (("own", 1.0), ("hashed", 0.25), ("one", 0.0), ("zero", 0.0))
    for dim in (2, 4, 8)
    for precision in ("int1", "int2", "int4", "int8", "fp16", "fp32")
] + [
    Choice("own", 1.0, 8, "int4", ((2, "int4"), (4, "int2"), (8, "int1"))),
    Choice("own", 1.0, 6, "int3", ((4, "int3"), (6, "int2"))),
    *(Choice("codebook", 0.0, dim, "int8", code_bits=bits) for bits in (1, 3) for dim in (4, 8)),
]


@pytest.mark.parametrize("correlated", [False, True])
def test_a_price_is_half_the_weighted_square_of_what_the_rows_read(correlated):
    weight, sensitivity = case()
    groups = [Group(0, 3, 40), Group(1, 0, 1), Group(1, 20, 61)]
    found = price(weight, sensitivity, groups, MENU, correlated=correlated)
    for g, group in enumerate(groups):
        where = slice((0, 40)[group.field] + group.start, (0, 40)[group.field] + group.stop)
        metric = sensitivity.correlation(group.field) if correlated else torch.eye(DIM)
        for c, choice in enumerate(MENU):
            change = read(weight, sensitivity, group, choice) - weight[where]
            total = sum(
                float((v.sqrt() * d) @ metric @ (v.sqrt() * d))
                for v, d in zip(sensitivity.second[where], change, strict=True)
            )
            assert float(found[g, c]) == pytest.approx(0.5 * total / 50, rel=1e-4, abs=1e-9)


def test_rows_stored_in_full_cost_nothing_and_zero_reads_row_0():
    weight, sensitivity = case()
    group = Group(1, 5, 30)
    found = price(weight, sensitivity, [group], [Choice("own"), Choice("own", precision="int8")])
    assert float(found[0, 0]) == 0.0 < float(found[0, 1])
    found = read(weight, sensitivity, group, Choice("zero"))
    torch.testing.assert_close(found, weight[40].expand(25, DIM))


def test_a_group_whose_rows_all_read_row_0_already_costs_nothing_under_any_choice():
    weight, sensitivity = case()
    weight[10:20] = weight[0]
    dropped, head = price(weight, sensitivity, [Group(0, 10, 20), Group(0, 0, 1)], MENU)
    assert not dropped.any() and head.any()


def test_parts_are_rounded_by_steps_of_their_own():
    weight, sensitivity = case()
    group = Group(0, 0, 40)
    parts = Choice("own", 1.0, 6, "int4", ((2, "int4"), (6, "int2")))
    found = read(weight, sensitivity, group, parts)
    head = read(weight, sensitivity, group, Choice("own", dim=2, precision="int4"))
    assert torch.equal(found[:, :2], head[:, :2]) and not found[:, 6:].any()
    # two bits in four columns: four levels
    assert len(found[:, 2:6].unique()) <= 4
    prices = price(weight, sensitivity, [group], [parts, Choice("own", dim=2, precision="int4")])
    assert prices[0, 0] < prices[0, 1]


def test_by_the_diagonal_more_bits_more_dimensions_and_less_sharing_never_cost_more():
    weight, sensitivity = case((300, 61))
    bits = [Choice("own", precision=p) for p in ("int1", "int2", "int4", "int8", "fp16", "fp32")]
    dims = [Choice("own", dim=dim) for dim in (1, 2, 4, 8)]
    sharing = [Choice("one"), Choice("hashed", 0.25), Choice("hashed", 0.5), Choice("own")]
    for menu in (bits, dims, sharing):
        found = price(weight, sensitivity, [Group(0, 1, 300)], menu, correlated=False)[0]
        assert (found.diff() <= 1e-9).all(), found


def test_hashed_rows_are_the_weighted_means_of_their_buckets_by_the_readers_hash():
    weight, sensitivity = case()
    group = Group(1, 1, 61)
    rows = GroupRows(weight, sensitivity, [group]).shared(Choice("hashed", 0.25, 4, "fp32")).rows
    assert rows.shape == (15, DIM)
    buckets = torch.tensor([reference(row, 1, 15) for row in range(1, 61)])
    members = (buckets == int(buckets[0])).nonzero().squeeze(1) + 41
    v = sensitivity.second[members]
    expected = (v * weight[members]).sum(0) / v.sum(0)
    torch.testing.assert_close(rows[buckets[0]], expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dim", [4, 8])
def test_ids_of_a_codebook_read_its_nearest_row(dim):
    weight, sensitivity = case((300, 61))
    group, choice = Group(0, 100, 300), Choice("codebook", 0.0, dim, "int8", code_bits=3)
    found = read(weight, sensitivity, group, choice)
    codebooks = Codebooks(weight, sensitivity)
    codebook, turned = codebooks.of(0)[3], codebooks.metrics[0].turned
    assert len(codebook) == 8 and not found[:, dim:].any()
    step = float(codebook[:, :dim].abs().max()) / 127
    for row, vector in zip(weight[100:300], found, strict=True):
        away = ((codebook - row) @ turned).square().sum(1)
        assert (vector[:dim] - codebook[away.argmin(), :dim]).abs().max() <= 0.51 * step


def test_stored_rows_under_their_step_are_what_is_read():
    weight, sensitivity = case()
    group, choice = Group(0, 0, 40), Choice("own", dim=4, precision="int2")
    shared = GroupRows(weight, sensitivity, [group]).shared(choice)
    step = shared.steps([choice])["int2", 0, 4]
    found = read(weight, sensitivity, group, choice)
    codes = (shared.rows[:, :4] / step - 0.5).round().clamp(-2, 1) + 0.5
    torch.testing.assert_close(found[:, :4], codes * step)
    assert not found[:, 4:].any()


def test_a_step_is_the_one_of_those_tried_with_the_least_weighted_error():
    weight, sensitivity = case((40, 61), seed=3)
    group = Group(1, 0, 61)
    rows, choices = (
        weight[40:],
        [Choice("own", dim=dim, precision=p) for dim in (2, 8) for p in ("int1", "int4")],
    )
    stored = GroupRows(weight, sensitivity, [Group(0, 0, 40), group])
    steps = stored.shared(choices[0]).steps(choices)
    for choice in choices:
        low, high, shift = {"int1": (-1, 0, 0.5), "int4": (-8, 7, 0.0)}[choice.precision]
        tried = rows.abs().max() / max(high + shift, 0.5) * torch.logspace(-1.6, 0.0, 16)
        errors = []
        for step in tried:
            codes = (rows / step - shift).round().clamp(low, high) + shift
            squares = (codes * step - rows).square() * stored.weights[40:]
            errors.append(float(squares[:, : choice.dim].sum()))
        assert float(steps[choice.precision, 0, choice.dim][1]) == pytest.approx(
            float(tried[torch.tensor(errors).argmin()])
        )


def test_a_sample_of_a_large_group_prices_it_alike(monkeypatch):
    weight, sensitivity = case((6000, 61))
    group = [Group(0, 1, 6000)]
    monkeypatch.setattr(prices_file, "PRICED_ROWS", 6000)
    exact = price(weight, sensitivity, group, MENU)
    monkeypatch.setattr(prices_file, "PRICED_ROWS", 1500)
    sampled = price(weight, sensitivity, group, MENU)
    # 1500 of rows alike: the error of a mean is some percent, of a shared row's rounding somewhat more
    torch.testing.assert_close(sampled, exact, rtol=0.2, atol=1e-6)
    assert torch.equal(sampled, price(weight, sensitivity, group, MENU))


def test_rows_that_were_never_met_have_a_price_of_zero_and_finite_values():
    weight, sensitivity = case()
    unseen = Sensitivity(torch.zeros_like(weight), sensitivity.field_gram * 0, (0, 40), 50, 0.0)
    found = price(weight, unseen, [Group(0, 0, 40)], MENU)
    assert not found.any()
    assert torch.isfinite(read(weight, unseen, Group(0, 0, 40), Choice("one"))).all()
