"""Values of a categorical column -> 64-bit keys, so that look-ups are sorted searches in numbers.

Whole numbers and strings of at most 8 bytes without NUL have keys of their own, in the order of the
values; longer strings are hashed, and whoever uses such keys compares the values too.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Keys = npt.NDArray[np.uint64]
Array = npt.NDArray[Any]

_SIGN = np.uint64(1 << 63)
_MIX_A = np.uint64(0xBF58476D1CE4E5B9)
_MIX_B = np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(0x9E3779B97F4A7C15)


class KeyCollision(Exception):
    """Two different strings share a key; another seed for the keys is needed."""


def mix(numbers: Keys) -> Keys:
    """The finaliser of splitmix64: a bijection on 64-bit numbers that spreads every bit."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX_A
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX_B
    return numbers ^ (numbers >> np.uint64(31))


def random_numbers(seed: int, positions: npt.NDArray[np.uint64]) -> Keys:
    """splitmix64: the number at every position (N,) of the stream of `seed`."""
    start = mix(np.array([seed], dtype=np.uint64) + _STEP)
    return mix(start + (positions + np.uint64(1)) * _STEP)


def integer_keys(values: npt.NDArray[np.int64]) -> Keys:
    """Keys (N,) in the order of the values (N,)."""
    return values.view(np.uint64) ^ _SIGN


def integers_of(keys: Keys) -> npt.NDArray[np.int64]:
    """The values that `integer_keys` was given."""
    return (keys ^ _SIGN).view(np.int64)


def string_keys(values: pa.Array, seed: int = 0) -> tuple[Keys, bool]:
    """Keys (N,) of strings (N,) without nulls, and whether all are exact and in the order of the bytes.

    A key depends on its value and the seed alone, never on the values beside it.
    """
    data, starts, lengths = _bytes_of(values)
    if len(lengths) == 0:
        return np.zeros(0, dtype=np.uint64), True
    if (lengths == 8).all():
        raw = data[starts[0] : starts[-1] + 8].reshape(-1, 8)
        keys, has_nul = raw.view(">u8")[:, 0].astype(np.uint64), (raw == 0).any(axis=1)
    else:
        keys, has_nul = _words(data, starts, lengths, 0)
    hashed = np.flatnonzero(has_nul | (lengths > 8))
    if len(hashed):
        keys[hashed] = _hashed(data, starts[hashed], lengths[hashed], keys[hashed], seed)
    return keys, len(hashed) == 0


def strings_of(keys: Keys) -> pa.Array:
    """The strings that exact `string_keys` were made of."""
    raw = keys.astype(">u8").view(np.uint8).reshape(-1, 8)
    lengths = (raw != 0).sum(axis=1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    data = raw[np.arange(8) < lengths[:, None]]
    return pa.LargeStringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(data))


def buckets(values: pa.Array) -> pa.Array:
    """Numbers -> ids: 2 + floor(ln(x)^2) for x > 2, floor(x) otherwise; missing and infinite -> null."""
    numbers = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    missing = ~np.isfinite(numbers)
    numbers = np.where(missing, 0.0, np.clip(numbers, -(2.0**62), None))
    ids = np.where(numbers > 2, 2 + np.floor(np.log(np.maximum(numbers, 1.0)) ** 2), np.floor(numbers))
    return pa.array(ids.astype(np.int64), mask=missing)


def _bytes_of(values: pa.Array) -> tuple[Array, Array, Array]:
    """The bytes of a string array, and where every value starts and how long it is."""
    wide = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    _, offset_buffer, data_buffer = values.buffers()
    dtype = np.int64 if wide else np.int32
    if offset_buffer is None or len(values) == 0:
        return np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64)
    offsets = np.frombuffer(offset_buffer, dtype)[values.offset : values.offset + len(values) + 1]
    data = np.zeros(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
    offsets = offsets.astype(np.int64)
    return data, offsets[:-1], np.diff(offsets)


def _words(data: Array, starts: Array, lengths: Array, word: int) -> tuple[Keys, npt.NDArray[np.bool_]]:
    """Bytes 8 * word .. 8 * word + 7 of every value as big-endian numbers, and which hold a NUL."""
    inside = np.arange(8) < (lengths - 8 * word)[:, None]  # (N, 8)
    places = np.where(inside, (starts + 8 * word)[:, None] + np.arange(8), 0)
    taken = data[places] if len(data) else np.zeros(places.shape, np.uint8)
    raw = np.where(inside, taken, np.uint8(0))
    return raw.view(">u8")[:, 0].astype(np.uint64), ((raw == 0) & inside).any(axis=1)


def _hashed(data: Array, starts: Array, lengths: Array, first: Keys, seed: int) -> Keys:
    """Every word is mixed into the key, then the length and the seed."""
    keys = mix(first + mix(lengths.astype(np.uint64) + np.array([seed], dtype=np.uint64) * _STEP))
    for word in range(1, -(-int(lengths.max()) // 8)):
        long = np.flatnonzero(lengths > 8 * word)
        next_word, _ = _words(data, starts[long], lengths[long], word)
        keys[long] = mix(keys[long] * _STEP + next_word)
    return keys
