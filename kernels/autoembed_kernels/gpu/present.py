"""Whether the Triton kernels can serve."""

from functools import cache
from importlib.util import find_spec

from torch import Tensor


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def triton_for(*tensors: Tensor | None) -> bool:
    """Whether all these tensors lie on a GPU and Triton is installed."""
    return all(tensor is None or tensor.is_cuda for tensor in tensors) and _installed()
