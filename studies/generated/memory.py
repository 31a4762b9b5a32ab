"""The memory of this process and its workers on Linux: what they hold alone, the most that was resident."""

import os
import threading
import time
from functools import lru_cache
from pathlib import Path

_SELF = Path("/proc/self")
_INTERVAL_SECONDS = 0.02


class PrivateMemory:
    """Samples private (anonymous) bytes in a thread: pages of mapped files, which can be dropped, are none.

    `peak` is the most since the start, `now` reads at once. Peaks shorter than the interval are missed.
    """

    def __init__(self) -> None:
        self.peak = 0
        self.now()
        self._stop = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def now(self) -> int:
        held = status_bytes("RssAnon")
        self.peak = max(self.peak, held)
        return held

    def stop(self) -> None:
        self._stop.set()
        self.now()

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self.now()


def peak_resident_bytes() -> int:
    """The most that was ever resident, mapped files included; unlike ru_maxrss without the parent's peak.

    With workers the sum, as if all peaks were at once.
    """
    return status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """A line of the status of this process and of the workers that it started, in bytes."""
    return _line(_SELF, name) + sum(_line(worker, name, gone=0) for worker in _workers(int(time.monotonic())))


@lru_cache(maxsize=1)
def _workers(_second: int) -> list[Path]:
    """The processes that this one started; looked for once a second, because all processes are looked at."""
    parent = f"PPid:\t{os.getpid()}\n"
    return [path.parent for path in Path("/proc").glob("[0-9]*/status") if parent in _text(path)]


def _text(path: Path) -> str:
    """Empty where the process has ended."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _line(process: Path, name: str, gone: int | None = None) -> int:
    """In bytes; `gone` where the process has ended."""
    for line in _text(process / "status").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    if gone is not None:
        return gone
    raise ValueError(f"{process}/status has no line {name!r}; this measurement needs Linux 4.5 or later")
