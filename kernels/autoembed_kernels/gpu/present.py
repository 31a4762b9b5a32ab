"""Whether the Triton kernels can serve, and on which GPU."""

from collections.abc import Callable, Sequence
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


def filled(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """These numbers on a device, written by kernels: a copy from the CPU would wait for the GPU."""
    made = torch.empty(len(values), dtype=dtype, device=device)
    for place, value in enumerate(values):
        made[place].fill_(value)
    return made


def capturing(like: Tensor) -> bool:
    """Whether a CUDA graph is being captured, so that nothing that is launched now is computed yet."""
    return like.is_cuda and torch.cuda.is_current_stream_capturing()


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
