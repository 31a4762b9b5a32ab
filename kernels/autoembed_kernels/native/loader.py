"""The C++ library of this folder, shipped in a wheel or built at first use, loaded once in each process.

Without either, or where AUTOEMBED_NATIVE=0 says so, there is none, and every operation uses torch.
Kernels are called through ctypes, which lets other Python threads run meanwhile. They use as many threads
as torch does, of the same OpenMP pool; a forked child uses one, because threads do not survive a fork.
"""

import ctypes
import logging
import os
import platform
import threading
from pathlib import Path

import torch
from torch import Tensor

from autoembed_kernels.native.build import BuildError, build, kept, level, processor_flags, shipped

_LOG = logging.getLogger(__name__)
_LOCK = threading.Lock()
_ADDRESS, _COUNT, _NUMBER = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
# argument types of every function, in the order of its declaration; all return int64, where numbers below 0
# tell the place of an index out of range: -1 - place
SIGNATURES = {
    "autoembed_dedupe": (_ADDRESS, *(_COUNT,) * 2, *(_ADDRESS,) * 4),
    "autoembed_take_rows": (_ADDRESS, _ADDRESS, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_sum_repeats": (*(_ADDRESS,) * 3, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_row_update": (
        *(_COUNT, *(_ADDRESS,) * 6, *(_COUNT,) * 3),
        *(*(_NUMBER,) * 3, *(ctypes.c_double,) * 2, _COUNT),
    ),
    "autoembed_low_row_update": (
        *(*(_COUNT,) * 2, *(_ADDRESS,) * 7, *(_COUNT,) * 3),
        *(*(_NUMBER,) * 3, *(ctypes.c_double,) * 2, _COUNT, *(ctypes.c_uint64,) * 2, _COUNT),
    ),
    "autoembed_take_low_rows": (_COUNT, *(_ADDRESS,) * 3, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_repeated_row_update": (
        *(_COUNT, *(_ADDRESS,) * 6, *(_COUNT,) * 3),
        *(*(_NUMBER,) * 3, *(ctypes.c_double,) * 2, _COUNT),
    ),
    "autoembed_repeated_low_row_update": (
        *(*(_COUNT,) * 2, *(_ADDRESS,) * 7, *(_COUNT,) * 3),
        *(*(_NUMBER,) * 3, *(ctypes.c_double,) * 2, _COUNT, *(ctypes.c_uint64,) * 2, _COUNT),
    ),
    "autoembed_gather_packed": (_ADDRESS, _COUNT, *(_ADDRESS,) * 3, _COUNT, _ADDRESS, _COUNT),
    "autoembed_look_up_packed": (_ADDRESS, _COUNT, *(_ADDRESS,) * 3, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_look_up_parts": (_ADDRESS, _COUNT, *(_ADDRESS,) * 4, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_look_up_shared": (_ADDRESS, _COUNT, *(_ADDRESS,) * 4, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_pool_packed": (
        *(_ADDRESS, _COUNT, *(_ADDRESS,) * 3, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT),
        *(*(_ADDRESS,) * 3, _COUNT),
    ),
    "autoembed_chunk_look_up": (
        *(_ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT),
        *(_ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT),
    ),
    "autoembed_chunk_step": (
        *(_COUNT, _ADDRESS, _COUNT, _COUNT, *(_ADDRESS,) * 5, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT),
        *(*(_ADDRESS,) * 3, _COUNT, *(_NUMBER,) * 3, *(ctypes.c_double,) * 2, _COUNT),
    ),
    "autoembed_new_entries": (_ADDRESS, _COUNT, _ADDRESS, _COUNT, _COUNT, _ADDRESS),
    "autoembed_admit_chunks": (_ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT, _COUNT, _ADDRESS, _COUNT),
    "autoembed_count_moves": (_ADDRESS, _ADDRESS, _COUNT, *(_NUMBER,) * 3, _ADDRESS, _ADDRESS, _COUNT),
    "autoembed_list_moves": (_ADDRESS, _ADDRESS, _COUNT, *(_NUMBER,) * 2, *(_ADDRESS,) * 4, _COUNT),
    "autoembed_cache_probe": (_ADDRESS, _COUNT, _COUNT, _ADDRESS, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_cache_place": (
        *(_ADDRESS, _COUNT, _COUNT, _ADDRESS, *(_COUNT,) * 3, _ADDRESS, _ADDRESS, _COUNT),
        *(_ADDRESS,) * 4,
    ),
    "autoembed_pool_slots": (_ADDRESS, _ADDRESS, *(_COUNT,) * 4, _ADDRESS, _COUNT),
    "autoembed_signature_slots": (_ADDRESS, _ADDRESS, *(_COUNT,) * 4, _ADDRESS, _COUNT),
    "autoembed_pair_places": (*(_ADDRESS,) * 7, _COUNT, _COUNT, _ADDRESS, _COUNT, *(_ADDRESS,) * 3),
    "autoembed_join_pairs": (*(_ADDRESS,) * 4, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_join_pairs_gradient": (*(_ADDRESS,) * 5, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_bias_relu": (*(_ADDRESS,) * 2, *(_COUNT,) * 3),
    "autoembed_bias_relu_gradient": (*(_ADDRESS,) * 2, *(_COUNT,) * 2, *(_ADDRESS,) * 2, _COUNT),
    "autoembed_pack_bits": (_ADDRESS, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_unpack_bits": (_ADDRESS, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_lsq": (*(_ADDRESS,) * 6, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_lsq_gradients": (*(_ADDRESS,) * 8, *(_COUNT,) * 3, *(_ADDRESS,) * 4, _COUNT),
    "autoembed_add_rows": (_ADDRESS, *(_COUNT,) * 2, _ADDRESS, _COUNT, _ADDRESS, _COUNT),
    "autoembed_nearest_row": (_ADDRESS, *(_COUNT,) * 2, *(_ADDRESS, _COUNT) * 2),
    "autoembed_split_codes": (_ADDRESS, _ADDRESS, *(_COUNT,) * 2, _ADDRESS, _COUNT, _ADDRESS, _COUNT),
    "autoembed_cheapest_runs": (*(_ADDRESS,) * 5, *(_COUNT,) * 2, _ADDRESS, _COUNT, *(_ADDRESS,) * 2, _COUNT),
    "autoembed_change_cost": (*(_ADDRESS,) * 6, *(_COUNT,) * 2, *(_ADDRESS,) * 5, _COUNT),
    "autoembed_step_errors": (
        *(*(_ADDRESS,) * 3, *(_COUNT,) * 2, _ADDRESS, _COUNT, *(_NUMBER,) * 3, _ADDRESS, _COUNT),
    ),
    "autoembed_pair_products": (_ADDRESS, *(_COUNT,) * 3, _ADDRESS, _COUNT),
    "autoembed_pair_products_gradient": (_ADDRESS, _ADDRESS, *(_COUNT,) * 3, _ADDRESS, _COUNT),
}


class _Loaded:
    """What this process found: nothing yet, or a library, or that there is none."""

    tried = False
    library: ctypes.CDLL | None = None
    forked = False


def library() -> ctypes.CDLL | None:
    """The library, or None; the first call may compile it, which takes seconds."""
    if not _Loaded.tried:
        with _LOCK:
            if not _Loaded.tried:
                _Loaded.library = None if os.environ.get("AUTOEMBED_NATIVE") == "0" else _load()
                _Loaded.tried = True
    return _Loaded.library


def must_compile() -> bool:
    """Whether the first call of `library` compiles it."""
    if _Loaded.tried or os.environ.get("AUTOEMBED_NATIVE") == "0":
        return False
    wanted = _wanted()
    try:
        return not shipped(*wanted).exists() and not kept(*wanted).exists()
    except BuildError:
        return False


def native_for(*tensors: Tensor | None) -> ctypes.CDLL | None:
    """The library, where it can work on all these tensors: dense, contiguous, on the CPU."""
    return library() if readable(*tensors) else None


def readable(*tensors: Tensor | None) -> bool:
    """Whether C++ can read these tensors: dense, contiguous, on the CPU."""
    for tensor in tensors:  # half the time of `all`, in every call of a kernel
        if tensor is not None and not (tensor.is_cpu and tensor.is_contiguous()):
            return False
    return True


def threads() -> int:
    """How many threads a kernel may use."""
    return 1 if _Loaded.forked else torch.get_num_threads()


def address(tensor: Tensor | None) -> int | None:
    """Where the tensor's values lie. Keep the tensor alive as long as the address is used."""
    return None if tensor is None else tensor.data_ptr()


def checked(result: int, indices: Tensor, bound: int, what: str) -> int:
    """The result of a kernel. Raises IndexError where it tells of an index out of range."""
    if result < 0:
        place = -1 - result
        raise IndexError(f"{what} {int(indices[place])} at place {place} is out of range, there are {bound}")
    return result


def shares_openmp() -> bool:
    """Whether a library linked against libgomp would use the copy that torch has loaded."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(line.rstrip().endswith("/libgomp.so.1") for line in maps.splitlines())


def _wanted() -> tuple[str, bool]:
    """The processor's level, and whether the library joins torch's OpenMP."""
    return level(processor_flags(), platform.machine()), shares_openmp()


def _load() -> ctypes.CDLL | None:
    wanted = _wanted()
    failed = ""
    if shipped(*wanted).exists():
        try:
            return opened(shipped(*wanted))
        except OSError as error:  # an older C library than the wheel was made for
            failed = f"; the library that was installed cannot be loaded: {error}"
    try:
        return opened(build(*wanted))
    except (BuildError, OSError) as error:
        _LOG.warning(
            "look-ups and updates of embedding rows run on torch alone, several times slower: %s%s",
            *(error, failed),
        )
        return None


def opened(path: Path) -> ctypes.CDLL:
    """The library of this file, its functions declared. Raises OSError."""
    loaded = ctypes.CDLL(str(path))
    for name, arguments in SIGNATURES.items():
        function = getattr(loaded, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int64
    return loaded


def _after_fork() -> None:
    _Loaded.forked = True


os.register_at_fork(after_in_child=_after_fork)
