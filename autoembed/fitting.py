"""The value of a method's knob that a byte budget asks for: the byte model says it before any training."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoembed.config import ConfigError
from autoembed.methods import make_method, method_named, nearest
from autoembed.methods.base import Choice, Domain, Float, Int, Method, TableSpec
from autoembed.stats import FieldStats, Stats

FIT = "fit"  # in place of a knob's value
GRID = 24  # values tried first
LARGE_FIELD = 1 << 20  # rows, more than a method takes for few
DIGITS = 3  # of a fitted float: a name that a person can read and type


@dataclass(frozen=True)
class Fitted:
    """A setting of `method` but for `knob`, which every budget gives another value.

    Raises ConfigError where the knob is not a number, or another parameter is wrong.
    """

    method: str
    parameters: tuple[tuple[str, Any], ...]
    knob: str

    def __post_init__(self) -> None:
        self._at(self._range.low)

    @property
    def _range(self) -> Int | Float:
        domain = self._domain
        if isinstance(domain, Choice):
            raise ConfigError(
                f"{self.method}.{self.knob} is one of {domain} and cannot be fitted; write one of them"
            )
        return domain

    @property
    def _domain(self) -> Domain:
        domains = {name: domain for name, _, domain, _ in method_named(self.method).knobs()}
        if self.knob not in domains:
            near = nearest(self.knob, domains)
            raise ConfigError(f"method {self.method!r} has no knob {self.knob!r}; {near}")
        return domains[self.knob]

    def _at(self, value: float) -> Method:
        return make_method(self.method, {**dict(self.parameters), self.knob: value})

    def within(self, spec: TableSpec, budgets: Sequence[int]) -> list[Method]:
        """For every budget in bytes that can be met, the setting of most bytes that is surely within it.

        Bytes may rise or fall with the knob, or fall and rise again as with collisions. Where all fields of
        the data are too small for the knob, one setting stands for all. Raises ConfigError where no field
        could be large enough.
        """
        sizes: dict[float, int] = {}

        def size(value: float) -> int:
            if value not in sizes:
                sizes[value] = self._most_bytes(value, spec)
            return sizes[value]

        found = [_largest(size, self._range, budget) for budget in budgets]
        storable = {value for value in sizes.values() if value}
        if len(storable) == 1 and len(sizes) > 1:
            if not self._matters(spec):
                raise ConfigError(f"{self.method}.{self.knob} changes no bytes; write a value, not {FIT!r}")
            return [self._at(value) for value in found if value is not None][:1]
        return [self._at(value) for value in found if value is not None]

    def _most_bytes(self, value: float, spec: TableSpec) -> int:
        """The most that the file may take; 0 where it cannot be stored."""
        try:
            return self._at(value).footprint(spec).high_bytes
        except ValueError:
            return 0

    def _matters(self, spec: TableSpec) -> bool:
        """Whether the knob would change the bytes of a field of many rows."""
        counts = np.arange(LARGE_FIELD, 0, -1, dtype=np.int64)
        large = replace(spec, stats=Stats((FieldStats("field", counts),)))
        return len({self._most_bytes(value, large) for value in _grid(self._range)} - {0}) > 1

    def gave(self, method: Method) -> bool:
        """Whether `method` is this setting with some value of the knob."""
        return method.name == self.method and method == self._at(getattr(method, self.knob))

    def problem(self, spec: TableSpec) -> str:
        """Why no budget has a setting: what forbids all of them, or that the budgets are too small."""
        reasons = []
        for value in (self._range.low, self._range.high):
            try:
                self._at(value).footprint(spec)
            except ValueError as error:
                reasons.append(str(error))
        if len(reasons) == 2:
            return reasons[1]
        return f"no {self.knob} of {self.method} fits a budget; raise the largest, or add one"


def _largest(size: Callable[[float], int], domain: Int | Float, budget: int) -> float | None:
    """The value of most bytes within the budget: the best of a grid, moved towards its neighbours."""
    grid = _grid(domain)
    place = max(range(len(grid)), key=lambda at: (size(grid[at]) * (size(grid[at]) <= budget), at))
    good = grid[place]
    if not 0 < size(good) <= budget:
        # between an unstorable value and one that is too large there may be one
        turns = [
            at for at in range(1, len(grid)) if (size(grid[at]) > budget) != (size(grid[at - 1]) > budget)
        ]
        if not turns:
            return None
        inside = [min(grid[at - 1 : at + 1], key=size) for at in turns]
        good, place = inside[0], grid.index(inside[0])
    for bad in (grid[at] for at in (place - 1, place + 1) if 0 <= at < len(grid)):
        if size(bad) > budget:
            moved = _moved(size, domain, good, bad, budget)
            return moved if 0 < size(moved) <= budget else None
    return good


def _grid(domain: Int | Float) -> list[float]:
    """Values from one end of the domain to the other, evenly or by a factor."""
    low, high = domain.low, domain.high
    shares = [place / (GRID - 1) for place in range(GRID)]
    if domain.log:
        values = [low * (high / low) ** share for share in shares]
    else:
        values = [low + (high - low) * share for share in shares]
    inner = {round(value) if isinstance(domain, Int) else float(f"{value:.{DIGITS}g}") for value in values}
    return sorted({low, *(value for value in inner if low < value < high), high})


def _moved(size: Callable[[float], int], domain: Int | Float, good: float, bad: float, budget: int) -> float:
    """The last value from `good`, which fits, to `bad`, which does not."""
    towards_bad = bad > good
    while _apart(good, bad, domain):
        middle: float = math.sqrt(good * bad) if domain.log else (good + bad) / 2
        if isinstance(domain, Int):
            middle = min(max(round(middle), min(good, bad) + 1), max(good, bad) - 1)
        good, bad = (middle, bad) if size(middle) <= budget else (good, middle)
    if isinstance(domain, Int):
        return good
    cut = _cut(good, math.floor if towards_bad else math.ceil)
    return cut if cut in domain and 0 < size(cut) <= budget else good


def _apart(first: float, second: float, domain: Int | Float) -> bool:
    """Whether a value lies between them that would be another one when written."""
    difference = abs(first - second)
    if isinstance(domain, Int):
        return difference > 1
    return difference > 1e-4 * (min(first, second) if domain.log else domain.high - domain.low)


def _cut(value: float, towards: Callable[[float], int]) -> float:
    if value == 0:
        return 0.0
    scale = 10.0 ** (DIGITS - 1 - math.floor(math.log10(abs(value))))
    return float(f"{towards(value * scale) / scale:.{DIGITS}g}")
