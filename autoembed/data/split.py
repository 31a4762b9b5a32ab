"""Which split every row belongs to: 0 train, 1 valid, 2 test; 3 to be left out."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autoembed.config import ConfigError
from autoembed.data.categorical import plain_or_dictionary
from autoembed.data.config import ColumnSplit, LastSplit, RandomSplit, texts_of
from autoembed.data.keys import random_numbers

IGNORED = np.int8(3)
NO_SPLIT = np.int8(4)

Codes = npt.NDArray[np.int8]
Pieces = Callable[[], Iterable[npt.NDArray[Any]]]


def random_codes(split: RandomSplit, first_row: int, rows: int) -> Codes:
    """The split of rows first_row, ...: a pure function of the seed and each row's number."""
    positions = np.arange(first_row, first_row + rows, dtype=np.uint64)
    draws = (random_numbers(split.seed, positions) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    codes = np.zeros(rows, dtype=np.int8)
    codes[draws < split.valid + split.test] = 1
    codes[draws < split.test] = 2
    return codes


def column_codes(column: pa.ChunkedArray, split: ColumnSplit, file: Path) -> Codes:
    """The split of every row (B,) by the column that says it; IGNORED, and NO_SPLIT where it is missing.

    Raises ConfigError for values in no list, and for what is no value, as lists.
    """
    lists = (split.train, split.valid, split.test, split.ignore)
    code_of = {
        text: code for code, values in enumerate(lists) for value in values for text in texts_of(value)
    }
    array = plain_or_dictionary(column)
    if pa.types.is_nested(array.type):
        raise ConfigError(
            f"{file}: column {split.column!r}, which says the split, holds {array.type}; "
            "write text, whole numbers or truth values"
        )
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    codes = []
    for value in encoded.dictionary.to_pylist():
        known = [code_of[text] for text in _texts(value) if text in code_of]
        if not known and value is not None and value == value:
            raise ConfigError(
                f"{file}: column {split.column!r} holds {str(value)!r}, which key 'split' lists nowhere; "
                "add it to train, valid, test or ignore"
            )
        codes.append(known[0] if known else NO_SPLIT)
    by_index = np.array([*codes, NO_SPLIT], dtype=np.int8)
    rows: Codes = by_index[encoded.indices.fill_null(len(codes)).to_numpy()]
    return rows


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, bytes):
        return (value.decode(errors="replace"),)
    if isinstance(value, float | Decimal) and value % 1 == 0:
        return (str(int(value)),)
    return texts_of(value)


def last_starts(split: LastSplit, rows: int) -> tuple[int, int]:
    """How many rows, in order, come before valid and before test."""
    test = round(rows * split.test)
    valid = round(rows * split.valid)
    return rows - test - valid, rows - test


class OrderSplit:
    """Splits by the order of float64 keys, ties by row, without sorting them: rows come in pieces.

    `codes` must be called with the pieces in order, once each.
    """

    def __init__(self, pieces: Pieces, starts: tuple[int, int]) -> None:
        self._thresholds = [_order_statistic(pieces, start) for start in starts]
        self._ties_seen = [0, 0]

    def codes(self, keys: npt.NDArray[np.float64]) -> Codes:
        """(N,) keys of the next rows -> their splits."""
        sortable = _sortable(keys)
        result = np.zeros(len(keys), dtype=np.int8)
        for which, (threshold, ties_before) in enumerate(self._thresholds):
            tied = sortable == threshold
            number = np.cumsum(tied) + self._ties_seen[which]  # 1 for the first tied row
            result += (sortable > threshold) | (tied & (number > ties_before))
            self._ties_seen[which] += int(tied.sum())
        return result


def _order_statistic(pieces: Pieces, position: int) -> tuple[np.uint64, int]:
    """The key at `position` of the sorted keys, and how many keys equal to it lie before `position`.

    Four passes, each fixing 16 of the 64 bits by a histogram.
    """
    prefix = np.uint64(0)
    below = position
    for shift in (48, 32, 16, 0):
        histogram = np.zeros(1 << 16, dtype=np.int64)
        for piece in pieces():
            keys = _sortable(piece)
            if shift < 48:
                keys = keys[keys >> np.uint64(shift + 16) == prefix >> np.uint64(shift + 16)]
            digits = ((keys >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64)
            histogram += np.bincount(digits, minlength=1 << 16)
        ends = np.cumsum(histogram)
        digit = min(int(np.searchsorted(ends, below, side="right")), (1 << 16) - 1)
        below -= int(ends[digit] - histogram[digit])
        prefix |= np.uint64(digit) << np.uint64(shift)
    return prefix, below


def _sortable(keys: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
    """float64 without NaN -> uint64 in the same order."""
    bits = (keys + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    negative = bits >> np.uint64(63) == 1
    return np.where(negative, ~bits, bits | np.uint64(1 << 63))
