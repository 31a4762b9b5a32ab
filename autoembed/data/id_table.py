"""A growing table of the ids of one field: each distinct value gets a number when it is first seen.

Two runs of sorted keys: a large one, and a small one that takes new keys and is merged into the large
one when it reaches a quarter of it. Memory: 12 bytes per id, and the text where keys are not exact.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from autoembed.data.keys import KeyCollision, Keys, integers_of, strings_of
from autoembed.data.vocabulary import Kind, Vocabulary

Numbers = npt.NDArray[np.int32]
_MOST = 2**31 - 2


class IdTable:
    """Numbers 0, 1, ... of the distinct values of a field."""

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self.size = 0
        self._large = _Run()
        self._recent = _Run()
        self._stored: list[pa.Array] | None = None  # text by number, where keys alone do not tell

    def numbers_of(self, values: pa.Array, keys: Keys, exact: bool) -> Numbers:
        """Numbers (N,) of distinct values (N,) with their keys; new values get the next numbers.

        Raises KeyCollision where two values share a key.
        """
        if not exact and self._stored is None:
            self._stored = [strings_of(self._keys_by_number())]
        order = np.argsort(keys)
        sorted_keys = keys[order]
        if not exact and (sorted_keys[1:] == sorted_keys[:-1]).any():
            raise KeyCollision
        found = self._large.find(sorted_keys)
        rest = np.flatnonzero(found < 0)
        found[rest] = self._recent.find(sorted_keys[rest])
        if self._stored is not None:
            self._compare(values, order, found)
        new = np.flatnonzero(found < 0)
        if self.size + len(new) > _MOST:
            raise ValueError(f"a field holds more than {_MOST} distinct ids; set 'hash_rows' for it")
        found[new] = np.arange(self.size, self.size + len(new), dtype=np.int32)
        if len(new):
            if self._stored is not None:
                self._store(values.take(pa.array(order[new])).cast(pa.large_string()))
            self.size += len(new)
            self._recent = self._recent.merged(sorted_keys[new], found[new])
            if len(self._recent.keys) * 4 > len(self._large.keys):
                self._large = self._large.merged(self._recent.keys, self._recent.numbers)
                self._recent = _Run()
        numbers = np.empty(len(keys), dtype=np.int32)
        numbers[order] = found
        return numbers

    def ranked(
        self, counts: npt.NDArray[np.int64], min_count: int
    ) -> tuple[Vocabulary, Numbers, npt.NDArray[np.int64]]:
        """Rank the ids by `counts` (size,), ties by value; ids below `min_count` are left out.

        -> the vocabulary, the row of every number shifted by one (size + 1,) so that number -1, a missing
        value, reads row 0, and the counts of the rows 1, 2, ...
        """
        run = self._large.merged(self._recent.keys, self._recent.numbers)
        kept = np.flatnonzero(counts[run.numbers] >= max(min_count, 1))
        if self._stored is None:
            by_value = kept
            order = by_value[np.argsort(-counts[run.numbers[by_value]], kind="stable")]
            keys = run.keys[order]
            values = strings_of(keys) if self.kind == "strings" else pa.array(integers_of(keys))
            numbers = run.numbers[order]
        else:
            numbers = run.numbers[kept]
            text = pa.concat_arrays(self._stored).take(pa.array(numbers))
            table = pa.table({"text": text, "count": counts[numbers]})
            sorting = pc.sort_indices(table, [("count", "descending"), ("text", "ascending")])
            values = text.take(sorting)
            numbers = numbers[sorting.to_numpy()]
        rows = np.zeros(self.size + 1, dtype=np.int32)
        rows[numbers + 1] = np.arange(1, len(numbers) + 1, dtype=np.int32)
        return Vocabulary(self.kind, values), rows, counts[numbers]

    def _compare(self, values: pa.Array, order: npt.NDArray[Any], found: Numbers) -> None:
        """Raise KeyCollision where a value is not the text stored under its number."""
        first = 0
        for text in self._stored or ():
            hits = np.flatnonzero((found >= first) & (found < first + len(text)))
            stored = text.take(pa.array(found[hits] - first))
            if not stored.equals(values.take(pa.array(order[hits])).cast(pa.large_string())):
                raise KeyCollision
            first += len(text)

    def _store(self, text: pa.Array) -> None:
        """Append the text of new numbers; pieces are joined so that each is half as long as the last."""
        assert self._stored is not None
        while self._stored and len(self._stored[-1]) < 2 * len(text):
            text = pa.concat_arrays([self._stored.pop(), text])
        self._stored.append(text)

    def _keys_by_number(self) -> Keys:
        keys = np.empty(self.size, dtype=np.uint64)
        for run in (self._large, self._recent):
            keys[run.numbers] = run.keys
        return keys


class _Run:
    """Sorted distinct keys with their numbers."""

    def __init__(self, keys: Keys | None = None, numbers: Numbers | None = None) -> None:
        self.keys: Keys = np.zeros(0, np.uint64) if keys is None else keys
        self.numbers: Numbers = np.zeros(0, np.int32) if numbers is None else numbers

    def find(self, keys: Keys) -> Numbers:
        """Numbers of sorted keys, -1 where a key is not here."""
        if len(self.keys) == 0 or len(keys) == 0:
            return np.full(len(keys), -1, dtype=np.int32)
        places = np.searchsorted(self.keys, keys)
        np.minimum(places, len(self.keys) - 1, out=places)
        return np.where(self.keys[places] == keys, self.numbers[places], np.int32(-1))

    def merged(self, keys: Keys, numbers: Numbers) -> "_Run":
        """A run that also holds other sorted keys, none of which is here yet."""
        if len(keys) == 0:
            return self
        places = np.searchsorted(self.keys, keys) + np.arange(len(keys))
        total = len(self.keys) + len(keys)
        old = np.ones(total, dtype=bool)
        old[places] = False
        merged_keys = np.empty(total, dtype=np.uint64)
        merged_numbers = np.empty(total, dtype=np.int32)
        merged_keys[places], merged_keys[old] = keys, self.keys
        merged_numbers[places], merged_numbers[old] = numbers, self.numbers
        return _Run(merged_keys, merged_numbers)
