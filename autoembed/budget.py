"""Sizes as people write them -> bytes, once, at the door. From there on names end in `_bytes`."""

import re
from dataclasses import dataclass
from fractions import Fraction

_UNITS = {"b": 1, "": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[f"{_letter}ib"] = 1024**_power
    _UNITS[f"{_letter}b"] = 1000**_power
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")
_RATIO = re.compile(r"\s*(?:1\s*/\s*(\d+(?:\.\d+)?)|(\d+(?:\.\d+)?)\s*x)\s*")


@dataclass(frozen=True)
class Footprint:
    """Bytes that a method needs: `low_bytes` at its smallest outcome, `high_bytes` at its largest.

    Both are equal where nothing about the size is learned.
    """

    low_bytes: int
    high_bytes: int

    def __post_init__(self) -> None:
        if not 0 <= self.low_bytes <= self.high_bytes:
            raise ValueError(f"a footprint needs 0 <= low <= high, got {self}")


def parse_bytes(text: str | int) -> int:
    """`"64MiB"` -> 67108864, `"8 MB"` -> 8000000, `4096` -> 4096; rounded down to whole bytes.

    Raises ValueError for anything else, naming the units that are known.
    """
    if isinstance(text, bool) or not isinstance(text, str | int):
        raise ValueError(f"a size is a number of bytes or text such as '64MiB', got {text!r}")
    match = _SIZE.fullmatch(str(text))
    if not match or match[2].lower() not in _UNITS:
        raise ValueError(
            f"cannot read {text!r} as a size; write a number and one of "
            "B, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)"
        )
    size = int(Fraction(match[1]) * _UNITS[match[2].lower()])
    if size <= 0:
        raise ValueError(f"a size must be positive, got {text!r}")
    return size


def parse_budget(text: str | int, full_bytes: int) -> int:
    """A budget as a size (`"64MiB"`) or as a ratio of full precision (`"1/16"`, `"16x"`) -> bytes.

    `full_bytes` is the exported size of the full-precision tables. Raises ValueError for anything else,
    naming both ways to write it.
    """
    match = _RATIO.fullmatch(str(text)) if isinstance(text, str) else None
    if match is None:
        try:
            return parse_bytes(text)
        except ValueError as error:
            raise ValueError(f"{error}; or write a share of full precision, 1/16 or 16x") from None
    ratio = Fraction(match[1] or match[2])
    if ratio <= 0:
        raise ValueError(f"a budget ratio must be positive, got {text!r}")
    size = int(full_bytes / ratio)
    if size <= 0:
        raise ValueError(
            f"the budget {text!r} of the {full_bytes} bytes of full precision is less than one byte; raise it"
        )
    return size


def format_bytes(size: float) -> str:
    """1536 -> `"1.5 KiB"`: for people only, never parsed again where exact bytes matter."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.4g} {unit}"
    return f"{size / 1024:.4g} TiB"
