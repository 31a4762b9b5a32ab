"""Compiled kernels in a wheel built on Linux x86-64: for every processor level, with OpenMP and without.

The wheel is then one for this platform, of any Python 3: the libraries need neither Python's nor torch's
headers. Its tag names the C library's version that they ask for. Without a compiler, elsewhere, or for an
editable install nothing is added, and the kernels are compiled at first use.

HATCH_BUILD_NO_HOOKS=true builds the wheel without them.
"""

import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGES = Path(__file__).parent / "kernels"


class CompiledKernels(BuildHookInterface):  # type: ignore[type-arg]
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the libraries to a standard wheel."""
        if version != "standard" or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            return
        sys.path.insert(0, str(PACKAGES))
        try:
            from autoembed_kernels.native.build import X86_LEVELS, BuildError, build, shipped
        finally:
            sys.path.remove(str(PACKAGES))
        wanted = list(product(X86_LEVELS, (True, False)))
        try:
            with ThreadPoolExecutor(4) as pool:
                built = list(pool.map(lambda one: build(*one), wanted))
        except BuildError as error:
            self.app.display_warning(f"the wheel holds no compiled kernels: {error}")
            return
        for library, (level, openmp) in zip(built, wanted, strict=True):
            name = shipped(level, openmp).relative_to(PACKAGES).as_posix()
            build_data["force_include"][str(library)] = name
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_{max(map(c_library, built))}_x86_64"


def c_library(library: Path) -> int:
    """The newest 2.x of glibc that the library's symbols ask for; 17 at least, the oldest that pip knows."""
    return max([17, *map(int, re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes()))])
