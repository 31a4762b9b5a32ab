"""Learned steps of rows: their gradient, what moves them, what is cut at the end."""

import pytest
import torch
from methods.settings import batch, spec

from autoembed.methods import make_method
from autoembed.methods.alpt import AlptTable, step_cosine, step_slope
from autoembed_kernels.row_update import RowOptimizer


def table(**parameters: float) -> AlptTable:
    method = make_method("alpt", parameters)
    made = method.table(spec("packed-row-scale"), torch.Generator().manual_seed(1), RowOptimizer("sgd"))
    assert isinstance(made, AlptTable)
    return made


def test_a_step_moves_along_the_gradient_through_the_quantizer() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(6, 5, generator=generator) * 3
    gradient = torch.randn(6, 5, generator=generator)
    gradient[5] = 0.0
    steps = (torch.rand(6, 1, generator=generator) * 0.3 + 0.2).requires_grad_()
    largest = 7
    units = values / steps
    rounded = units + (units.round() - units).detach()
    clipped = torch.where(units.abs() <= largest, rounded, largest * units.sign())
    (clipped * steps * gradient).sum().backward()
    assert steps.grad is not None and (units.abs() > largest).any()
    slope = step_slope(values, steps.detach(), largest)
    torch.testing.assert_close((slope * gradient).sum(1, keepdim=True), steps.grad)
    turned = step_cosine(values, steps.detach(), gradient, largest)
    assert (turned.abs() <= 1 + 1e-6).all() and float(turned[5]) == 0.0
    assert torch.equal(turned.sign(), steps.grad.sign())


def test_a_row_that_grows_takes_its_step_along() -> None:
    made = table(bits=4)
    example = batch(64, seed=2)
    (made(example) * 100).sum().backward()
    made.update(1.0)
    rows = example.ids[:, 0].unique()
    read = made.codes.read(rows)
    assert float(read.abs().amax(1).min()) > 10  # a hundred less a fifth, from a tenth


def test_steps_of_the_rows_that_were_read_move_and_no_others() -> None:
    made = table(bits=4, step_rate=1.0)
    before = made.codes.steps.clone()
    example = batch(16, seed=2)
    made(example).square().sum().backward()
    made.update(0.1)
    read = torch.zeros(len(before), dtype=torch.bool)
    read[(example.ids[:, 0]).unique()] = True
    moved = made.codes.steps != before
    assert moved[:200][read[:200]].float().mean() > 0.8 and not moved[:200][~read[:200]].any()


def test_settled_steps_have_eight_significant_bits_and_are_near() -> None:
    made = table(bits=8, step_rate=1.0)
    made(batch(64, seed=2)).square().sum().backward()
    made.update(0.1)
    before = made.codes.steps.clone()
    made.settle()
    assert torch.equal(made.codes.steps, made.codes.steps.bfloat16().float())
    assert ((made.codes.steps / before - 1).abs() <= 2.0**-8).all()


def test_a_row_holds_its_codes_a_step_and_nothing_else() -> None:
    rows = len(table().codes.weight)
    assert table(bits=8).training_bytes - table(bits=4).training_bytes == rows * 4
    assert sum(b.numel() * b.element_size() for b in table(bits=8).codes.buffers()) == rows * (8 + 4)


def test_a_profile_without_scales_in_the_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="'packed' cannot store a scale in each row"):
        make_method("alpt", {}).footprint(spec("packed"))
