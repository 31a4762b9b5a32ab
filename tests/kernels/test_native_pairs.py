"""Products of pairs in C++ against the float64 reference, values and gradients."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_library import native, poisoned

from autoembed_kernels.pair_products import (
    native_gradient,
    native_products,
    pair_places,
    pair_products,
    reference,
)


@given(
    st.sampled_from([0, 1, 5, 8, 9, 19]),
    st.sampled_from([2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 27, 33]),
    st.sampled_from([1, 3, 8, 15, 16, 17, 32, 64, 70]),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=40)
def test_products_and_gradients_are_those_of_the_reference(
    examples: int, vectors: int, dim: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, vectors, dim, generator=generator)
    exact = x.double().requires_grad_()
    products = reference(exact)
    gradient = torch.randn(products.shape, generator=generator)
    (expected,) = torch.autograd.grad((products * gradient).sum(), exact)
    found = native_products(native(), x, poisoned(*products.shape))
    found_gradient = native_gradient(native(), gradient, x, poisoned(*x.shape))
    # sums of at most 70 products of numbers below 5, each rounded to 2^-24
    torch.testing.assert_close(found.double(), products.detach(), rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found_gradient.double(), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_that_are_not_contiguous_are_read_right(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(4, 6, 10, generator=generator, dtype=dtype)
    x = wide[:, ::2, 1:8].requires_grad_()
    products = pair_products(x, *pair_places(3))
    # a gradient spread from one number is not contiguous either
    (gradient,) = torch.autograd.grad(products.sum(), x)
    exact = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(reference(exact).sum(), exact)
    torch.testing.assert_close(products.double(), reference(exact), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), expected, rtol=1e-5, atol=1e-5)


def test_places_of_another_number_of_vectors_are_refused() -> None:
    x = torch.zeros(3, 6, 4, requires_grad=True)
    upper, mirrored = pair_places(6)
    for wrong in ((pair_places(3)[0], mirrored), (upper, pair_places(7)[1])):
        with pytest.raises(ValueError, match=r"shape .* expected .* `pair_places\(6\)`"):
            pair_products(x, *wrong).sum().backward()
    with pytest.raises(ValueError, match="vectors has shape"):
        pair_products(x[0], upper, mirrored)


@pytest.mark.parametrize("dim", [16, 64, 72])
def test_large_gradients_are_written_past_the_cache_as_small_ones_are_written(dim: int) -> None:
    """8 MiB and more, where rows are whole lines."""
    examples = (8 << 20) // (4 * 27 * dim) + 3
    generator = torch.Generator().manual_seed(dim)
    x = torch.randn(examples, 27, dim, generator=generator)
    gradient = torch.randn(examples, 27 * 26 // 2, generator=generator)
    found = native_gradient(native(), gradient, x, poisoned(*x.shape))
    for part in (slice(0, 50), slice(50, examples)):
        few = native_gradient(native(), gradient[part][:50], x[part][:50], poisoned(50, 27, dim))
        assert torch.equal(found[part][:50], few)
    last = native_gradient(native(), gradient[-7:], x[-7:], poisoned(7, 27, dim))
    assert torch.equal(found[-7:], last)


def test_products_of_vectors_without_numbers_are_zero() -> None:
    found = native_products(native(), torch.zeros(9, 4, 0), poisoned(9, 6))
    assert torch.equal(found, torch.zeros(9, 6))
