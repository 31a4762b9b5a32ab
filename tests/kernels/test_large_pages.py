"""Large pages are asked for where there are any, and change nothing but where memory lies."""

from pathlib import Path

import pytest
import torch

from autoembed_kernels.gather_packed import as_words
from autoembed_kernels.large_pages import LARGE_PAGE, in_large_pages


@pytest.mark.parametrize("size", [0, 1, LARGE_PAGE, 3 * LARGE_PAGE + 12345, 20 * LARGE_PAGE])
@pytest.mark.parametrize("before", [0, 1])
def test_values_and_their_address_stay(size: int, before: int) -> None:
    values = torch.arange(size + before).to(torch.uint8)[before:]
    address, kept = values.data_ptr(), values.clone()
    assert in_large_pages(values) is values
    assert values.data_ptr() == address
    assert torch.equal(values, kept)


def test_tensors_that_are_not_dense_on_the_cpu_come_back() -> None:
    for tensor in (torch.zeros(2**22, device="meta"), torch.zeros(2**22, 2).T):
        assert in_large_pages(tensor) is tensor


def large_pages_of(tensor: torch.Tensor) -> int:
    """Bytes in large pages of the mappings that hold the tensor, as Linux tells."""
    start, found, inside = tensor.data_ptr(), 0, False
    stop = start + tensor.numel() * tensor.element_size()
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        first, _, last = line.split(" ", 1)[0].partition("-")
        if last:
            inside = int(first, 16) < stop and start < int(last, 16)
        elif inside and line.startswith("AnonHugePages:"):
            found += 1024 * int(line.split()[1])
    return found


def test_packed_words_lie_in_large_pages_where_linux_has_them() -> None:
    allowed = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not allowed.exists() or "[never]" in allowed.read_text(encoding="ascii"):
        pytest.skip("no large pages on this system")
    # any that are left: a full machine may have none
    probe = in_large_pages(torch.zeros(40 * LARGE_PAGE, dtype=torch.uint8))
    if not large_pages_of(probe):
        pytest.skip("no large page was left")
    words = as_words(torch.ones(80 * LARGE_PAGE, dtype=torch.uint8), 16)
    assert large_pages_of(words) >= 40 * LARGE_PAGE
