"""A checked mode: indices out of range raise IndexError on a GPU, too.

C++ looks at every index anyway. On a GPU a look would make the caller wait for the result, so that Triton and
torch read whatever lies there, unless asked:

    with checked_rows():
        table(batch)
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor


class _Mode:
    on = False


@contextmanager
def checked_rows() -> Iterator[None]:
    """Check the rows of look-ups and updates inside, of all threads; every check waits for the GPU."""
    before, _Mode.on = _Mode.on, True
    try:
        yield
    finally:
        _Mode.on = before


def check_rows(rows: Tensor, bound: int) -> None:
    """In the checked mode, raises IndexError where a row is not in [0, bound)."""
    if _Mode.on:
        outside = ((rows < 0) | (rows >= bound)).flatten().nonzero()
        if len(outside):
            place = int(outside[0])
            raise IndexError(
                f"row {int(rows.flatten()[place])} at place {place} is out of range, there are {bound}"
            )
