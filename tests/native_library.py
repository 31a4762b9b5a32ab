"""The C++ library for tests of it, and outputs in which a value that was not written shows."""

import ctypes

import pytest
import torch
from torch import Tensor

from autoembed_kernels.native.loader import library


def native() -> ctypes.CDLL:
    found = library()
    if found is None:
        pytest.skip("the C++ library is switched off or cannot be built here")
    return found


def poisoned(*shape: int) -> Tensor:
    return torch.full(shape, float("nan"))
