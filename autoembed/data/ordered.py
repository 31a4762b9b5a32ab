"""Run jobs in threads and take their results in order, with few of them under way at a time."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def run_ordered(jobs: Iterator[Callable[[], Result]], threads: int) -> Iterator[Result]:
    """Results in the order of `jobs`; at most `threads` + 1 jobs are held at once.

    `jobs` is drawn from the calling thread. With one thread everything runs there.
    """
    if threads <= 1:
        for job in jobs:
            yield job()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="prepare") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
