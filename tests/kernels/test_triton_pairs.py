"""Products of pairs in Triton against the float64 reference: in Triton's interpreter, or on a GPU."""

import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from autoembed_kernels.pair_products import reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed")

from autoembed_kernels.gpu.pair_products import serves, triton_gradient, triton_products  # noqa: E402


@given(
    st.integers(0, 4),
    st.sampled_from([2, 3, 8, 15, 16, 17, 27, 33, 64]),
    st.sampled_from([1, 3, 15, 16, 17, 64, 70]),
    st.integers(0, 2**32),
)
# the interpreter takes tens of milliseconds for each example, and shrinking would try hundreds
@settings(deadline=None, max_examples=20, phases=[Phase.generate])
def test_products_and_gradients_are_those_of_the_reference(
    examples: int, vectors: int, dim: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(examples, vectors, dim, generator=generator)
    exact = x.double().requires_grad_()
    products = reference(exact)
    gradient = torch.randn(products.shape, generator=generator)
    (expected,) = torch.autograd.grad((products * gradient).sum(), exact)
    nan = float("nan")
    found = triton_products(x.to(DEVICE), torch.full(products.shape, nan, device=DEVICE))
    found_gradient = triton_gradient(
        gradient.to(DEVICE), x.to(DEVICE), torch.full(x.shape, nan, device=DEVICE)
    )
    # sums of at most 70 products of numbers below 5, each rounded to 2^-24
    torch.testing.assert_close(found.cpu().double(), products.detach(), rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found_gradient.cpu().double(), expected, rtol=1e-5, atol=2e-5)


def test_examples_too_large_for_registers_and_other_types_are_left_to_torch() -> None:
    assert serves(torch.empty(1, 64, 128)) and serves(torch.empty(1, 27, 256))
    assert not serves(torch.empty(1, 65, 16))
    assert not serves(torch.empty(1, 64, 129))
    assert not serves(torch.empty(1, 27, 16, dtype=torch.float64))
