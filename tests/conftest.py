"""Processes that test side by side share the processors: with all of them each, threads would wait."""

import os

_processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _processes > 1:  # before torch is imported; processes that tests start take it over
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _processes)))
