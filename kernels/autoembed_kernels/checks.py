"""Shapes and dtypes that C++ and Triton take on trust, compared before they are handed addresses.

No value is read, so that a check costs a fraction of a microsecond and nothing waits for a GPU.
"""

import torch
from torch import Tensor

_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """Raises ValueError where the tensor has another shape; `meaning` says what is expected, in words."""
    if tensor.shape != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}: {meaning}")


def check_dims(name: str, tensor: Tensor, letters: str) -> None:
    """Raises ValueError where the tensor has not as many dimensions as there are letters, as in "R, D"."""
    if tensor.dim() != letters.count(",") + 1:
        shape = f"({letters})" if "," in letters else f"({letters},)"
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")


def as_indices(name: str, indices: Tensor, *kept: torch.dtype) -> Tensor:
    """indices (N,) of whole numbers -> the same in int64, or as they are where their dtype is one of `kept`.

    Raises ValueError for other shapes and dtypes.
    """
    dtype = indices.dtype
    if indices.dim() != 1 or (dtype is not torch.int64 and dtype not in _WHOLE):
        raise ValueError(f"{name} has shape {tuple(indices.shape)} and dtype {dtype}, expected (N,) of int64")
    return indices if dtype is torch.int64 or dtype in kept else indices.long()
