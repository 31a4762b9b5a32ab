"""The way from a public function to its custom operator, which it takes while a compiler traces it.

A custom operator is opaque to torch.compile and torch.export and brings its own shapes and gradient, so that
C++ and Triton stay one node of a graph. A call of one costs 35 to 230 microseconds more than the function
behind it (forward and backward, torch 2.13, one core), as much as a whole small batch's operation, so that
eager code never takes this way.
"""

from typing import Any

import torch


def operators() -> Any:
    """`torch.ops.autoembed`, its operators registered."""
    import autoembed_kernels.ops  # noqa: F401

    return torch.ops.autoembed
