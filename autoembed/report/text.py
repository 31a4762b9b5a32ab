"""How intervals and shares are written in tables."""

from autoembed.statistics import Interval


def with_interval(interval: Interval | None, digits: int = 5) -> str:
    """`0.98384 ± 0.00021`, the mean and half its interval; the mean alone for one seed; "" for None."""
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.{digits}f}"
    return f"{interval.mean:.{digits}f} ± {(interval.high - interval.low) / 2:.{digits}f}"


def percent(part: float, whole: float) -> str:
    """`12.3 %`."""
    return f"{100 * part / whole:.1f} %"
