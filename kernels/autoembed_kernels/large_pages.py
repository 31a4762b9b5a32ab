"""Big tables in pages of 2 MB, which Linux gives to memory that asks for them.

A look-up reads a few bytes of some page, and where that page lies takes longer to find out than to read them:
a table has more pages of 4 KB than the processor remembers. Torch asks for all its memory or for none, by the
environment variable THP_MEM_ALLOC_ENABLE, which is off.
"""

import ctypes
import platform
from functools import cache
from pathlib import Path

from torch import Tensor

LARGE_PAGE = 2**21  # bytes; those of x86-64, and of ARM with pages of 4 KB
_LEAST_PAGES = 2  # less stays in the cache with small pages, too
_ASK, _MOVE_NOW = 14, 25  # MADV_HUGEPAGE for pages to come; MADV_COLLAPSE for those there, since Linux 6.1


def in_large_pages(tensor: Tensor) -> Tensor:
    """Asks for large pages under a contiguous tensor and returns it, its values and its address unchanged.

    Whole large pages inside its memory become such, where Linux has any left and its administrator allows
    them; otherwise, and on other devices and systems, nothing happens.
    """
    if not (tensor.device.type == "cpu" and tensor.is_contiguous()):
        return tensor
    at = tensor.data_ptr()
    start = -(-at // LARGE_PAGE) * LARGE_PAGE
    stop = (at + tensor.numel() * tensor.element_size()) // LARGE_PAGE * LARGE_PAGE
    if stop - start >= _LEAST_PAGES * LARGE_PAGE and _are_allowed():
        for advice in (_ASK, _MOVE_NOW):
            _libc().madvise(start, stop - start, advice)
    return tensor


@cache
def _are_allowed() -> bool:
    try:
        chosen = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    except OSError:
        return False
    return platform.system() == "Linux" and "[never]" not in chosen


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc
