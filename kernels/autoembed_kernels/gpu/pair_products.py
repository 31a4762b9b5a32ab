"""Products of pairs on a GPU, an example a program: no (V, V) products reach memory. See `pair_products`.

    forward    X X^T in registers, of which the part above the diagonal is stored
    backward   G with the gradient of pair (i, j) at [i, j] and [j, i], zero on the diagonal;  dX = G X

Products are sums of three products of TF32 numbers on the matrix units, which together have the digits of a
float32 product; they are added in float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoembed_kernels.gpu.present import launches

WIDEST = 64  # vectors of an example, above which its products need more registers than there are
MOST_VALUES = 8192  # of an example's vectors, padded
TERMS = 16  # of a sum that are held at a time: the compiler keeps both factors of a product in registers


@triton.jit
def pair_products_kernel(x, out, vectors, dim, pairs, VECTORS: tl.constexpr, TERMS: tl.constexpr):
    """x (B, vectors, dim) -> out (B, pairs); VECTORS is a power of two from 16 on."""
    example = tl.program_id(0).to(tl.int64)
    v = tl.arange(0, VECTORS)
    products = tl.zeros([VECTORS, VECTORS], tl.float32)
    for first in range(0, dim, TERMS):
        d = first + tl.arange(0, TERMS)
        tile = tl.load(x + example * vectors * dim + v[:, None] * dim + d[None, :],
                       mask=(v[:, None] < vectors) & (d[None, :] < dim), other=0.0)  # fmt: skip
        products = tl.dot(tile, tl.trans(tile), products, input_precision="tf32x3")
    i, j = v[:, None], v[None, :]
    pair = (i * (2 * vectors - i - 1)) // 2 + j - i - 1
    tl.store(out + example * pairs + pair, products, mask=(i < j) & (j < vectors))


@triton.jit
def pair_gradient_kernel(
    gradient, x, out, vectors, dim, pairs, VECTORS: tl.constexpr, COLUMNS: tl.constexpr, TERMS: tl.constexpr
):
    """gradient (B, pairs), x (B, vectors, dim) -> out (B, vectors, dim)."""
    example = tl.program_id(0).to(tl.int64)
    v = tl.arange(0, VECTORS)
    d = tl.arange(0, COLUMNS)
    x += example * vectors * dim
    sums = tl.zeros([VECTORS, COLUMNS], tl.float32)
    for first in range(0, vectors, TERMS):
        other = first + tl.arange(0, TERMS)
        i = tl.minimum(v[:, None], other[None, :])
        j = tl.maximum(v[:, None], other[None, :])
        pair = (i * (2 * vectors - i - 1)) // 2 + j - i - 1
        full = tl.load(gradient + example * pairs + pair, mask=(i < j) & (j < vectors), other=0.0)
        tile = tl.load(x + other[:, None] * dim + d[None, :],
                       mask=(other[:, None] < vectors) & (d[None, :] < dim), other=0.0)  # fmt: skip
        sums = tl.dot(full, tile, sums, input_precision="tf32x3")
    tl.store(out + example * vectors * dim + v[:, None] * dim + d[None, :], sums,
             mask=(v[:, None] < vectors) & (d[None, :] < dim))  # fmt: skip


def padded(vectors: int, dim: int) -> tuple[int, int]:
    """Sizes of an example's tile."""
    return max(16, int(triton.next_power_of_2(vectors))), max(16, int(triton.next_power_of_2(dim)))


def serves(vectors: Tensor) -> bool:
    """Whether examples of (B, V, D) fit the registers of a program."""
    rows, columns = padded(*vectors.shape[1:])
    return vectors.dtype == torch.float32 and rows <= WIDEST and rows * columns <= MOST_VALUES


def warps(rows: int, columns: int) -> int:
    """Of a program with so many sums: 32 for a thread, two thirds of the time of 8 on an H200."""
    return max(1, min(8, rows * columns // 1024))


@launches
def triton_products(vectors: Tensor, out: Tensor) -> Tensor:
    """vectors (B, V, D) contiguous into out (B, pairs)."""
    examples, count, dim = vectors.shape
    rows, _ = padded(count, dim)
    if out.numel():
        pair_products_kernel[(examples,)](
            *(vectors, out, count, dim, out.shape[1]),
            VECTORS=rows,
            TERMS=TERMS,
            num_warps=warps(rows, rows),
        )
    return out


@launches
def triton_gradient(gradient: Tensor, vectors: Tensor, out: Tensor) -> Tensor:
    """gradient (B, pairs) and vectors (B, V, D), contiguous, into out (B, V, D)."""
    examples, count, dim = vectors.shape
    rows, columns = padded(count, dim)
    if out.numel():
        pair_gradient_kernel[(examples,)](
            *(gradient, vectors, out, count, dim, gradient.shape[1]),
            VECTORS=rows,
            COLUMNS=columns,
            TERMS=TERMS,
            num_warps=warps(rows, columns),
        )
    return out
