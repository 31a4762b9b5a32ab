"""How much memory is left to take."""

from pathlib import Path

_KIB = 1024


def free_bytes() -> int | None:
    """Bytes that this process may still take: what the machine has available, or less where the process is
    limited (`ulimit -v`). None where the system does not tell."""
    try:
        available = _kib(Path("/proc/meminfo"), "MemAvailable") * _KIB
        taken = _kib(Path("/proc/self/status"), "VmSize") * _KIB
    except (OSError, StopIteration):
        return None
    import resource  # only systems that have it come this far

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return available if limit == resource.RLIM_INFINITY else max(0, min(available, limit - taken))


def _kib(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
