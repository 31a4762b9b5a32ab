"""Prepare a large generated log in Criteo's format and print rows per second and peak memory.

    python studies/bench_prepare.py --rows 20000000 --threads 2

39 columns with the cardinalities of the Criteo Kaggle data; about 260 bytes per row of scratch space for
the log and 470 for preparing it, removed at the end. Preparing runs in a process of its own, so that the
peak is its alone: ru_maxrss, which also counts the interpreter and the imports.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoembed.data.generate import config_of, criteo_kaggle, generate
from autoembed.data.prepare import PrepareProgress, prepare


def main() -> None:
    arguments = _arguments()
    if arguments.prepare_only:
        _prepare(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="bench_prepare_") as folder:
        log = arguments.log or Path(folder) / "log.txt"
        start = time.perf_counter()
        if not log.exists():
            generate(criteo_kaggle(arguments.rows), log)
            print(f"generated {arguments.rows:,} rows in {time.perf_counter() - start:.0f} s", flush=True)
        command = [sys.executable, __file__, "--prepare-only", "--rows", str(arguments.rows)]
        command += ["--threads", str(arguments.threads), "--log", str(log), "--scratch", folder]
        start = time.perf_counter()
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        seconds = time.perf_counter() - start
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        unit = 1 if platform.system() == "Darwin" else 1024
        result = {
            "rows": arguments.rows,
            "log_bytes": log.stat().st_size,
            "prepared_bytes": sum(
                p.stat().st_size for p in Path(folder).glob("prepared/**/*") if p.is_file()
            ),
            "ids": sum(f["rows"] - 1 for f in json.loads(_manifest(folder))["fields"]),
            "threads": arguments.threads,
            "seconds": round(seconds, 1),
            "rows_per_second": round(arguments.rows / seconds),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_rss_bytes": usage.ru_maxrss * unit,
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
        print(json.dumps(result, indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--threads", type=int, default=2, help="threads that parse")
    parser.add_argument("--scratch", type=Path, help="folder for the log and the prepared data")
    parser.add_argument("--log", type=Path, help="use this log, made by an earlier run; it is kept")
    parser.add_argument("--prepare-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _prepare(arguments: argparse.Namespace) -> None:
    start = time.perf_counter()
    next_report = 0.0

    def show(at: PrepareProgress) -> None:
        nonlocal next_report
        if at.done >= next_report or at.done in (0.0, 1.0):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            line = f"{at.stage} {at.done:4.0%} {at.rows:,} rows, {time.perf_counter() - start:.0f} s"
            print(f"{line}, peak {peak / 1024:.0f} MiB", flush=True)
            next_report = at.done + 0.1 if at.done < 1 else 0.0

    config = config_of(criteo_kaggle(arguments.rows), arguments.log)
    prepare(config, arguments.scratch / "prepared", threads=arguments.threads, progress=show)


def _manifest(folder: str) -> str:
    return (Path(folder) / "prepared" / "manifest.json").read_text()


if __name__ == "__main__":
    main()
