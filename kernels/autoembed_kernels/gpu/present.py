"""Whether the Triton kernels can serve, and on which GPU."""

from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def triton_for(*tensors: Tensor | None) -> bool:
    """Whether all these tensors lie on a GPU and Triton is installed."""
    return all(tensor is None or tensor.is_cuda for tensor in tensors) and _installed()


def launches(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The function, run with its first tensor's GPU as the current one, where Triton launches kernels."""

    @wraps(function)
    def on_its_device(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        first = next(each for each in args if isinstance(each, Tensor))
        if not first.is_cuda:  # in the interpreter
            return function(*args, **kwargs)
        with torch.cuda.device(first.device):
            return function(*args, **kwargs)

    return on_its_device
