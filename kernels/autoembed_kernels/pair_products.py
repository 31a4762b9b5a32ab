"""Dot products of all pairs of an example's vectors: the interaction of DLRM, and of inner-product networks.

    out[b, p] = sum over d of x[b, i, d] x[b, j, d]        for pair p = (i, j), i < j, in the order of
                                                           torch.triu_indices(V, V, offset=1)
    d x[b, i] = sum over j != i of g[b, pair of i and j] x[b, j]

Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems",
arXiv:1906.00091.
"""

from ctypes import CDLL
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoembed_kernels.checks import check_dims, check_shape
from autoembed_kernels.gpu.present import triton_for
from autoembed_kernels.native.loader import address, native_for, threads
from autoembed_kernels.operators import operators


def reference(vectors: Tensor) -> Tensor:
    """vectors (B, V, D) -> (B, V (V - 1) / 2), in float64."""
    wide = vectors.double()
    count = vectors.shape[1]
    pairs = [(wide[:, i] * wide[:, j]).sum(1) for i in range(count) for j in range(i + 1, count)]
    return torch.stack(pairs, dim=1) if pairs else wide.new_zeros(len(wide), 0)


def pair_products(vectors: Tensor, upper: Tensor, mirrored: Tensor) -> Tensor:
    """vectors (B, V, D), V >= 2 -> (B, V (V - 1) / 2); first derivatives only.

    upper and mirrored of `pair_places(V)`, which the torch path uses. Raises ValueError where they are those
    of another V.
    """
    if torch.compiler.is_compiling():
        traced: Tensor = operators().pair_products(vectors, upper, mirrored)
        return traced
    products: Tensor = _PairProducts.apply(vectors, upper, mirrored)  # type: ignore[no-untyped-call]
    return products


def pair_places(vectors: int) -> tuple[Tensor, Tensor]:
    """Where pair p stands in the flattened (V, V) products, and which pair stands at each place."""
    first, second = torch.triu_indices(vectors, vectors, offset=1)
    mirrored = torch.zeros(vectors, vectors, dtype=torch.int64)
    mirrored[first, second] = mirrored[second, first] = torch.arange(len(first))
    return first * vectors + second, mirrored.flatten()


def native_products(library: CDLL, vectors: Tensor, out: Tensor) -> Tensor:
    """Into out (B, pairs), native/pair_products.cpp."""
    library.autoembed_pair_products(address(vectors), *vectors.shape, address(out), threads())
    return out


def native_gradient(library: CDLL, gradient: Tensor, vectors: Tensor, out: Tensor) -> Tensor:
    """Into out (B, V, D)."""
    library.autoembed_pair_products_gradient(
        address(gradient), address(vectors), *vectors.shape, address(out), threads()
    )
    return out


def products_of(vectors: Tensor, upper: Tensor) -> Tensor:
    """vectors (B, V, D) contiguous -> (B, pairs), without a gradient."""
    check_dims("vectors", vectors, "B, V, D")
    count = vectors.shape[1]
    check_shape("upper", upper, (count * (count - 1) // 2,), f"that of `pair_places({count})`")
    native = _native(vectors)
    if native is not None:
        return native_products(native, vectors, vectors.new_empty(len(vectors), len(upper)))
    if triton_for(vectors):
        from autoembed_kernels.gpu.pair_products import serves, triton_products

        if serves(vectors):
            return triton_products(vectors, vectors.new_empty(len(vectors), len(upper)))
    # a contiguous second factor makes the batched product three times as fast on a CPU
    products = torch.bmm(vectors, vectors.transpose(1, 2).contiguous())  # (B, V, V)
    return products.flatten(1).index_select(1, upper)


def products_gradient(gradient: Tensor, vectors: Tensor, mirrored: Tensor) -> Tensor:
    """gradient (B, pairs) and vectors (B, V, D), contiguous -> the gradient of the vectors (B, V, D).

    In torch it is one product with the mirrored gradient of the pairs, about half the time of autograd's own
    backward pass through bmm and index_select on a CPU.
    """
    check_dims("vectors", vectors, "B, V, D")
    size, count, _ = vectors.shape
    check_shape("mirrored", mirrored, (count**2,), f"that of `pair_places({count})`")
    check_shape("gradient", gradient, (size, count * (count - 1) // 2), "one for each pair")
    native = _native(vectors, gradient)
    if native is not None:
        return native_gradient(native, gradient, vectors, torch.empty_like(vectors))
    if triton_for(vectors, gradient):
        from autoembed_kernels.gpu.pair_products import serves, triton_gradient

        if serves(vectors):
            return triton_gradient(gradient, vectors, torch.empty_like(vectors))
    full = gradient.index_select(1, mirrored).view(size, count, count)
    full.diagonal(dim1=1, dim2=2).zero_()
    return torch.bmm(full, vectors)


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, upper: Tensor, mirrored: Tensor) -> Tensor:
        vectors = vectors.contiguous()
        ctx.save_for_backward(vectors, mirrored)
        return products_of(vectors, upper)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        vectors, mirrored = ctx.saved_tensors
        return products_gradient(gradient.contiguous(), vectors, mirrored), None, None


def _native(*tensors: Tensor) -> CDLL | None:
    return native_for(*tensors) if all(tensor.dtype == torch.float32 for tensor in tensors) else None
