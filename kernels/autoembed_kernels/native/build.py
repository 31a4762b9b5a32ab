"""Compile the C++ sources of this folder into one shared library for this processor, and keep it.

A wheel for Linux x86-64 brings libraries for all levels in the folder `built`, made by hatch_build.py.

The library lies in the user's cache ($XDG_CACHE_HOME or ~/.cache, folder `autoembed`), named by a hash of
all that it depends on: sources, compiler, flags. It is built aside and moved into place, so that processes
that build at once each find a whole library. Neither Python's nor torch's headers are needed.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parent
# processor flags, as Linux names them, that the levels of the x86-64 psABI ask for on top of each other
_V2 = {"cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"}
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
X86_LEVELS = {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2}
_COMMON = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-ffp-contract=off")
# sums of products gain up to twice the speed from fused multiply-add, and nothing compares them bit for bit
_FUSED = ("-ffp-contract=fast",)
_FUSED_SOURCES = ("change_cost", "nearest_row", "pair_products", "split_codes", "step_errors")
_OWN_FLAGS = dict.fromkeys(_FUSED_SOURCES, _FUSED)


class BuildError(RuntimeError):
    """There is no library; the message says why and what to do."""


def level(flags: set[str], machine: str) -> str:
    """The highest level that a processor with these flags reaches; its architecture alone where none is."""
    if machine in ("x86_64", "AMD64"):
        return next((name for name, needed in X86_LEVELS.items() if needed <= flags), "x86-64")
    return machine


def processor_flags() -> set[str]:
    """The flags of this machine's processor; none where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return set()
    return set(next((line.split(":", 1)[1] for line in lines if line.startswith("flags")), "").split())


def cache_folder() -> Path:
    """Where libraries are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "autoembed"


def shipped(target_level: str, openmp: bool) -> Path:
    """Where a wheel has the library for a level, if it has one."""
    return SOURCES / "built" / f"{target_level}{'-openmp' if openmp else ''}.so"


@cache
def compiler() -> tuple[str, str]:
    """Path and version of the C++ compiler: $CXX, else the first of g++, clang++, c++. Raises BuildError."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for path in filter(None, map(shutil.which, wanted)):
        return path, _run([path, "--version"]).splitlines()[0]
    raise BuildError(f"no C++ compiler found (looked for {', '.join(wanted)}); install g++ or set CXX")


def kept(target_level: str, openmp: bool) -> Path:
    """Where `build` keeps the library for a level, whether it is there or not. Raises BuildError."""
    path, version = compiler()
    return cache_folder() / f"{target_level}-{_key(path, version, _flags(target_level, openmp))}.so"


def build(target_level: str, openmp: bool) -> Path:
    """The library for a level, compiled unless the cache holds it. Raises BuildError."""
    library = kept(target_level, openmp)
    if library.exists():
        return library
    path, _ = compiler()
    flags, sources = _flags(target_level, openmp), sorted(SOURCES.glob("*.cpp"))
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as folder:
            with ThreadPoolExecutor(os.cpu_count()) as together:  # each waits for a compiler of its own
                objects = list(together.map(lambda s: _compiled(path, flags, s, Path(folder)), sources))
            made = Path(folder) / "library.so"
            _run([path, "-shared", *flags, *map(str, objects), "-o", str(made)])
            os.replace(made, library)
    except OSError as error:
        raise BuildError(f"{library.parent} cannot be written ({error}); set XDG_CACHE_HOME") from None
    return library


def _flags(target_level: str, openmp: bool) -> list[str]:
    flags = [*_COMMON, *(["-fopenmp"] if openmp else [])]
    if target_level.startswith("x86-64-"):
        flags.append(f"-march={target_level}")
    return flags


def _compiled(path: str, flags: Sequence[str], source: Path, folder: Path) -> Path:
    made = folder / f"{source.stem}.o"
    _run([path, *flags, *_OWN_FLAGS.get(source.stem, ()), "-c", str(source), "-o", str(made)])
    return made


def _key(path: str, version: str, flags: Sequence[str]) -> str:
    """A hash of all that the library depends on."""
    found = hashlib.sha256(repr((path, version, flags, _OWN_FLAGS, platform.libc_ver())).encode())
    for source in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        found.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return found.hexdigest()[:20]


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise BuildError(f"{' '.join(command[:1])} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
