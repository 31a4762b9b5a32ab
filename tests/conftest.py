"""Processes that test side by side share the processors: with all of them each, threads would wait."""

import os
from collections.abc import Iterator

import pytest

_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _processes > 1:  # before torch is imported; processes that tests start take it over
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _processes)))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Trainings of a module that are compared to the bit, or are too small for two threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
