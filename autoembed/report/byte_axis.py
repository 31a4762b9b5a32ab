"""A log axis of bytes with ticks that people read (64 KiB, 1 MiB), and the same as times smaller."""

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from autoembed.budget import format_bytes


def set_byte_axis(axes: Axes, low: float, high: float, title: str) -> None:
    """Make x run from `low` to `high` bytes in powers of two."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(powers_of_two(low, high, most=9)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: format_bytes(size)))
    axes.set_xlabel(title)


def add_ratio_axis(axes: Axes, full_bytes: int, title: str) -> None:
    """Write `full_bytes` over bytes along the top of `axes`, whose limits must be set."""
    low, high = axes.get_xlim()
    top = axes.twiny()
    top.set_xscale("log")
    top.set_xlim(low, high)
    ratios = powers_of_two(full_bytes / high, full_bytes / low, most=10)
    top.xaxis.set_major_locator(FixedLocator([full_bytes / ratio for ratio in ratios]))
    top.xaxis.set_minor_locator(NullLocator())
    top.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{full_bytes / size:g}x"))
    top.set_xlabel(title)


def powers_of_two(low: float, high: float, most: int) -> list[float]:
    """At most `most` powers of two in [low, high], evenly spaced; none where none lies between."""
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    step = max(1, math.ceil((last - first + 1) / most))
    return [2.0**power for power in range(math.ceil(first / step) * step, last + 1, step)]
