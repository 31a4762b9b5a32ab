"""What a training run cost: time, samples, memory."""

import resource
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Ledger:
    """The cost of one training run, from its first batch to the packed tables.

    `seconds` are wall clock and `cpu_seconds` those of all threads of the process, both with
    validation. `samples` were trained on, repeats counted. `peak_table_bytes` is the largest sum of
    rows, optimizer state, indexes and the remembered best epoch; `peak_process_bytes` the largest
    resident size that the process ever had.
    """

    seconds: float
    cpu_seconds: float
    samples: int
    steps: int
    epochs: int
    peak_table_bytes: int
    peak_process_bytes: int

    def cost_seconds(self, on_cpu: bool) -> float:
        """What costs are counted in: processor seconds on a CPU, where other programs stretch the clock."""
        return self.cpu_seconds if on_cpu else self.seconds


class Meter:
    """Counts while a run goes on; `read` makes the ledger."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._cpu_started = time.process_time()
        self.samples = 0
        self.steps = 0
        self.epochs = 0
        self.peak_table_bytes = 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._started

    def saw(self, samples: int) -> None:
        """One training step over `samples` examples."""
        self.samples += samples
        self.steps += 1

    def holds(self, table_bytes: int) -> None:
        """The embedding tables and what is kept for them take `table_bytes` now."""
        self.peak_table_bytes = max(self.peak_table_bytes, table_bytes)

    def read(self) -> Ledger:
        return Ledger(
            self.seconds,
            time.process_time() - self._cpu_started,
            self.samples,
            self.steps,
            self.epochs,
            self.peak_table_bytes,
            _peak_process_bytes(),
        )


def _peak_process_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
