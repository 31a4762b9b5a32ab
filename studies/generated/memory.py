"""The memory of this process on Linux: what it holds alone, sampled, and the most that was ever resident."""

import threading
from pathlib import Path

_STATUS = Path("/proc/self/status")
_INTERVAL_SECONDS = 0.02


class PrivateMemory:
    """Samples private (anonymous) bytes in a thread: pages of mapped files, which can be dropped, are none.

    `peak` is the most since the start, `now` reads at once. Peaks shorter than the interval are missed.
    """

    def __init__(self) -> None:
        self.peak = self.now()
        self._stop = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def now(self) -> int:
        return status_bytes("RssAnon")

    def stop(self) -> None:
        self._stop.set()
        self.peak = max(self.peak, self.now())

    def _sample(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self.peak = max(self.peak, self.now())


def peak_resident_bytes() -> int:
    """The most that was ever resident, mapped files included; unlike ru_maxrss without the parent's peak."""
    return status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{_STATUS} has no line {name!r}; this measurement needs Linux 4.5 or later")
