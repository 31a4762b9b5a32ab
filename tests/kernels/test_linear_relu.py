"""A linear map with ReLU in C++ against the float64 reference, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native, poisoned
from torch import Tensor

from autoembed_kernels import linear_relu as operation
from autoembed_kernels.linear_relu import (
    linear_relu,
    native_bias_relu,
    native_bias_relu_gradient,
    reference,
)


@given(st.integers(0, 200), st.sampled_from([1, 3, 15, 16, 17, 64, 130]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=25)
def test_both_passes_are_those_of_float64(size: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values, gradient = (torch.randn(size, columns, generator=generator) for _ in range(2))
    bias = torch.randn(columns, generator=generator)
    expected = (values + bias).clamp(min=0)
    out = native_bias_relu(native(), values.clone(), bias)
    assert torch.equal(out, expected)
    masked = poisoned(size, columns)
    summed = native_bias_relu_gradient(native(), gradient, out, masked)
    assert torch.equal(masked, torch.where(out > 0, gradient, 0.0))
    # sums of 200 numbers below 5 in float32
    torch.testing.assert_close(summed.double(), masked.double().sum(0), rtol=1e-5, atol=1e-4)
    again = gradient.clone()
    assert torch.equal(native_bias_relu_gradient(native(), again, out, again), summed)
    assert torch.equal(again, masked), "in place it is the same"


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("needs_inputs", [False, True])
def test_values_and_gradients_are_those_of_the_reference(
    alone: bool, needs_inputs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    native()
    monkeypatch.setattr(operation, "LEAST_NUMBERS", 0)
    generator = torch.Generator().manual_seed(0)
    inputs, weight, bias = (torch.randn(shape, generator=generator) for shape in ((70, 12), (20, 12), (20,)))
    factors = torch.randn(70, 20, generator=generator)

    def gradients(used: tuple[Tensor, ...], out: Tensor) -> list[Tensor | None]:
        (out * factors.to(out.dtype)).sum().backward()
        return [tensor.grad for tensor in used]

    used = (inputs.clone().requires_grad_(needs_inputs), weight.requires_grad_(), bias.requires_grad_())
    out = linear_relu(*used, alone)
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in used)
    expected = reference(*exact)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    found, wanted = gradients(used, out), gradients(exact, expected)
    for one, other in zip(found, wanted, strict=True):
        if one is None:
            assert not needs_inputs
        else:
            # sums of 70 products
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_a_gradient_that_others_read_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    native()
    monkeypatch.setattr(operation, "LEAST_NUMBERS", 0)
    weight, bias, inputs = torch.randn(6, 5), torch.randn(6), torch.randn(9, 5)
    weight.requires_grad_()
    other = torch.zeros(9, 6, requires_grad=True)
    # a sum hands the very same gradient to both of its terms
    (linear_relu(inputs, weight, bias) + other).backward(torch.ones(9, 6))
    assert other.grad is not None and torch.equal(other.grad, torch.ones(9, 6))


def test_what_is_no_number_stays_so() -> None:
    values = torch.tensor([[float("nan"), 1.0, -1.0]])
    out = native_bias_relu(native(), values, torch.zeros(3))
    assert out.isnan().tolist() == [[True, False, False]]
    masked = torch.empty(1, 3)
    native_bias_relu_gradient(native(), torch.ones(1, 3), out, masked)
    assert masked.tolist() == [[1.0, 1.0, 0.0]], "as torch has it"


def test_any_number_of_threads_gives_the_same_bits() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient, out = (torch.randn(300, 50, generator=generator) for _ in range(2))
    before, made = torch.get_num_threads(), []
    try:
        for workers in (1, 2, 5):
            torch.set_num_threads(workers)
            made.append(native_bias_relu_gradient(native(), gradient, out, torch.empty(300, 50)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])


def test_a_bias_of_one_number_is_repeated_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "LEAST_NUMBERS", 0)
    generator = torch.Generator().manual_seed(0)
    inputs, weight = (torch.randn(size, 3, generator=generator) for size in (4, 70))
    out = linear_relu(inputs, weight, torch.ones(1))
    # products of three numbers, in another order of sums
    torch.testing.assert_close(out.double(), reference(inputs, weight, torch.ones(70)), rtol=1e-5, atol=1e-5)
    with pytest.raises(RuntimeError):
        linear_relu(inputs, weight, torch.ones(69))
