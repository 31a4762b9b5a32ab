"""How much memory is left to take."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_KIB = 1024
_CGROUPS = Path("/sys/fs/cgroup")


def free_bytes() -> int | None:
    """Bytes that this process may still take: what the machine has available, or less where the process is
    limited (`ulimit -v`) or its container is. None where the system does not tell."""
    try:
        available = _kib(Path("/proc/meminfo"), "MemAvailable") * _KIB
        taken = _kib(Path("/proc/self/status"), "VmSize") * _KIB
        of_group = free_in_cgroup(Path("/proc/self/cgroup").read_text(), _CGROUPS)
    except (OSError, StopIteration):
        return None
    import resource  # only systems that have it come this far

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    left = [available] if limit == resource.RLIM_INFINITY else [available, max(0, limit - taken)]
    return min(left if of_group is None else [*left, of_group])


def free_in_cgroup(groups: str, mounted: Path) -> int | None:
    """Bytes that the least free of a process's control groups still allows; None where none is limited.

    groups: the content of /proc/PID/cgroup; mounted: /sys/fs/cgroup, in version 2, 1 or both. A container may
    see its own group at the root of what is mounted, whatever the path says.
    """
    left = []
    for line in groups.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            names = "memory.max", "memory.current", "inactive_file"
            roots = [mounted, mounted / "unified"]
        elif "memory" in controllers.split(","):
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
            roots = [mounted / "memory", mounted / controllers]
        else:
            continue
        for root in roots:
            left += [
                free for folder in _upwards(root, path) if (free := _left_in(folder, *names)) is not None
            ]
    return min(left, default=None)


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """The folder of a group and those of all groups around it."""
    inside = PurePosixPath(path.lstrip("/"))
    for part in (inside, *inside.parents):
        if ".." not in part.parts:  # a group outside of what the container sees
            yield root / part


def _left_in(folder: Path, limit_name: str, used_name: str, cache_key: str) -> int | None:
    """What one group has left; pages of files that it need not keep count as free. None without a limit."""
    try:
        limit = (folder / limit_name).read_text().strip()
        used = int((folder / used_name).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return None if limit == "max" else max(0, int(limit) - used + int(stat.get(cache_key, 0)))
    except (OSError, ValueError):
        return None


def _kib(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])
