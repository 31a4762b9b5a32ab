"""From the raw values of a field to its rows: the value of rank r reads row r, all others read row 0."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autoembed.data.keys import Keys, buckets, integer_keys, string_keys

Kind = Literal["integers", "strings", "buckets"]
_SEEDS = 64


class RepeatedIdError(ValueError):
    """A vocabulary holds an id twice, so that it has two rows."""


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a field, most frequent first unless they were reordered: values[0] reads row 1.

    `values`: int64 for whole numbers and for buckets of numbers (`keys.buckets`), large_string for text;
    without nulls and repeats.
    """

    kind: Kind
    values: pa.Array

    @property
    def size(self) -> int:
        """The number of ids that it knows."""
        return len(self.values)

    @property
    def rows(self) -> int:
        """The rows of the field: one per id, and row 0."""
        return self.size + 1

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def lookup(self, values: Any) -> npt.NDArray[np.int64]:
        """Raw values (N,), a pyarrow array or a list -> rows (N,); unseen and missing values -> 0.

        Raises TypeError where text meets a vocabulary of numbers or the reverse, RepeatedIdError.
        """
        array = plain_array(values)
        if len(array) == 0 or pa.types.is_null(array.type):
            return np.zeros(len(array), dtype=np.int64)
        array = ids_of_kind(array, self.kind, "vocabulary")
        rows = np.zeros(len(array), dtype=np.int64)
        present = np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))
        sorted_keys, sorted_rows, seed, exact = self._index
        if len(present) == 0 or self.size == 0:
            return rows
        known = array if len(present) == len(array) else array.drop_null()
        if self.kind == "strings":
            keys, exact_keys = string_keys(known, seed)
        else:
            keys, exact_keys = integer_keys(known.to_numpy()), True
        places = np.minimum(np.searchsorted(sorted_keys, keys), self.size - 1)
        found = sorted_keys[places] == keys
        candidates = np.where(found, sorted_rows[places], 0)
        if not (exact and exact_keys):
            hits = np.flatnonzero(found)
            stored = self.values.take(pa.array(candidates[hits] - 1))
            same = pc.equal(stored, known.take(pa.array(hits))).to_numpy(zero_copy_only=False)
            candidates[hits[~same]] = 0
        rows[present] = candidates
        return rows

    def truncated(self, rows: int) -> "Vocabulary":
        """The vocabulary of the first `rows` rows, row 0 included; ids behind them read row 0."""
        if not 1 <= rows <= self.rows:
            raise ValueError(f"cannot keep {rows} of {self.rows} rows; keep between 1 and {self.rows}")
        return Vocabulary(self.kind, self.values.slice(0, rows - 1))

    def reordered(self, rows: npt.NDArray[np.int32]) -> "Vocabulary":
        """The vocabulary whose row r is this one's row rows[r] (R,), an order that begins with row 0."""
        return Vocabulary(self.kind, self.values.take(pa.array(rows[1:] - 1)))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The vocabulary as arrays: `integers` or `buckets` int64 (size,), or `offsets` and `bytes` of text.

        offsets (size + 1,) are int32 where they fit, else int64; bytes are UTF-8, uint8.
        """
        if self.kind != "strings":
            return {self.kind: self.values.to_numpy()}
        values = pa.concat_arrays([self.values])  # drops what a slice left out
        _, offset_buffer, data_buffer = values.buffers()
        count = len(values)
        offsets = np.zeros(1, np.int64)
        if offset_buffer is not None and count:
            offsets = np.frombuffer(offset_buffer, np.int64)[values.offset : values.offset + count + 1]
        data = np.zeros(0, np.uint8) if data_buffer is None else np.frombuffer(data_buffer, np.uint8)
        data = data[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        return {"offsets": offsets.astype(np.int32 if offsets[-1] < 2**31 else np.int64), "bytes": data}

    @staticmethod
    def from_tensors(tensors: dict[str, npt.NDArray[Any]]) -> "Vocabulary":
        """What `tensors` gave, or ValueError."""
        names = set(tensors)
        if names == {"integers"} or names == {"buckets"}:
            kind: Kind = "integers" if "integers" in names else "buckets"
            return Vocabulary(kind, pa.array(np.asarray(tensors[kind], dtype=np.int64)))
        if names != {"offsets", "bytes"}:
            raise ValueError(
                f"a vocabulary is stored as 'integers', 'buckets', or 'offsets' and 'bytes'; "
                f"found {sorted(names)}"
            )
        offsets = np.ascontiguousarray(tensors["offsets"], dtype=np.int64)
        data = np.ascontiguousarray(tensors["bytes"], dtype=np.uint8)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
            raise ValueError("the offsets of a vocabulary must rise from 0 to the number of its bytes")
        values = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
        try:
            values.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"a vocabulary's bytes are no UTF-8 text: {error}") from None
        return Vocabulary("strings", values)

    @cached_property
    def _index(self) -> tuple[Keys, npt.NDArray[np.int64], int, bool]:
        """Sorted keys, the row of each, the seed that keeps the keys distinct, whether they are exact.

        Raises RepeatedIdError: here all are sorted anyway, while a search for repeats in a file that is read
        would take longer than reading it.
        """
        for seed in range(_SEEDS):
            if self.kind == "strings":
                keys, exact = string_keys(self.values, seed)
            else:
                keys, exact = integer_keys(self.values.to_numpy()), True
            order = np.argsort(keys)
            keys = keys[order]
            places = np.flatnonzero(keys[1:] == keys[:-1])
            if len(places) == 0:
                return keys, order.astype(np.int64) + 1, seed, exact
            ids = self.values.take(pa.array(order[places]))
            same = pc.equal(ids, self.values.take(pa.array(order[places + 1])))
            if pc.any(same).as_py():
                raise RepeatedIdError(f"the vocabulary holds the id {ids.filter(same)[0].as_py()!r} twice")
        raise RuntimeError(f"no seed below {_SEEDS} keeps the keys of {self.size} values distinct")


def ids_of_kind(array: pa.Array, kind: Kind, holder: str) -> pa.Array:
    """Ids in the type of their kind: large_string or int64. Raises TypeError, which names the `holder`."""
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    if kind == "strings":
        if not is_text:
            raise TypeError(f"this {holder} holds text, got {array.type}; pass strings")
        return array.cast(pa.large_string())
    if is_text:
        raise TypeError(f"this {holder} holds numbers, got {array.type}; pass numbers")
    return buckets(array) if kind == "buckets" else as_int64(array)


def as_int64(array: pa.Array) -> pa.Array:
    """Whole numbers as int64, NaN as missing. Unsigned 64-bit hashes keep their bits, so that all of them
    have a value. Raises ArrowInvalid for fractions."""
    if pa.types.is_uint64(array.type):
        return array.view(pa.int64())
    return without_nan(array).cast(pa.int64())


def without_nan(array: pa.Array) -> pa.Array:
    """NaN -> null, in an array of any type."""
    if not pa.types.is_floating(array.type):
        return array
    return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)


def plain_array(values: Any) -> pa.Array:
    """Lists, NumPy arrays, chunked, dictionary-encoded and view arrays -> one plain pyarrow array.

    NaN in a list is null. Whole numbers, and lists of them, are uint64 where int64 does not hold them; raises
    OverflowError where neither does.
    """
    array = values if isinstance(values, pa.Array | pa.ChunkedArray) else _arrow(values)
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # several chunks of nothing
        array = pa.concat_arrays(array.chunks)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    # there are no kernels for views; pyarrow 15 has no name for their type
    return array.cast(pa.large_string()) if str(array.type) == "string_view" else array


def _arrow(values: Any) -> pa.Array:
    if isinstance(values, np.ndarray) and not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if isinstance(values, Iterator):
        values = list(values)  # it may be read more than once
    try:
        return pa.array(values, from_pandas=True)
    except OverflowError:
        try:
            return pa.array(values, pa.uint64(), from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            return pa.array(values, pa.list_(pa.uint64()), from_pandas=True)
