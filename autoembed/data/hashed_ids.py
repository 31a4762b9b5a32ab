"""Raw values of a field -> rows without a vocabulary, by a hash that is the same wherever it is computed.

    row = 1 + mix(key) mod hash_rows,      missing values read row 0

`key` is the value's 64-bit key of `autoembed.data.keys`, for text with seed 0; `mix` is the finaliser of
splitmix64. The hash belongs to the format of exported models (docs/format.md). Rows come in no order of
frequency, and nothing is kept of the ids: how many there were is estimated from how many rows they fill.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autoembed.data.keys import Keys, integer_keys, mix, string_keys
from autoembed.data.vocabulary import Kind, Vocabulary, ids_of_kind, plain_array

MOST_HASH_ROWS = 2**31 - 2  # rows are int32 on disk
KEY_SEED = 0


@dataclass(frozen=True)
class HashedIds:
    """What stands in for a `Vocabulary` where there is none; it takes no bytes."""

    kind: Kind
    hash_rows: int

    @property
    def rows(self) -> int:
        """The rows of the field: those that ids are hashed to, and row 0."""
        return self.hash_rows + 1

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors: it has none."""
        return 0

    def lookup(self, values: Any) -> npt.NDArray[np.int64]:
        """Raw values (N,), a pyarrow array or a list -> rows (N,) from 1 on; missing values -> 0.

        Raises TypeError where text meets numbers or the reverse: they would be hashed otherwise.
        """
        array = plain_array(values)
        rows = np.zeros(len(array), dtype=np.int64)
        if len(array) == 0 or pa.types.is_null(array.type):
            return rows
        array = ids_of_kind(array, self.kind, "field")
        present = array.is_valid().to_numpy(zero_copy_only=False)
        known = array.drop_null()
        keys = string_keys(known, KEY_SEED)[0] if self.kind == "strings" else integer_keys(known.to_numpy())
        rows[present] = hashed_rows(keys, self.hash_rows)
        return rows

    def truncated(self, rows: int) -> "HashedIds":
        """All rows, the only number there is. Raises ValueError for another: a hash does not end earlier."""
        if rows != self.rows:
            raise ValueError(f"ids are hashed to {self.rows} rows, the last ones cannot be cut off at {rows}")
        return self

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """None are needed."""
        return {}


FieldIds = Vocabulary | HashedIds


def hashed_rows(keys: Keys, hash_rows: int) -> npt.NDArray[np.int64]:
    """Keys (N,) of seed KEY_SEED -> rows (N,) in 1 .. hash_rows."""
    return (mix(keys) % np.uint64(hash_rows)).astype(np.int64) + 1


def distinct_ids(used_rows: int, hash_rows: int) -> float:
    """How many distinct ids, hashed to `hash_rows` rows, are likely to have used `used_rows` of them.

        n = ln(1 - used / hash_rows) / ln(1 - 1 / hash_rows)

    Linear counting (Whang, Vander-Zanden and Taylor, TODS 1990). For a load t = n / hash_rows the standard
    error is sqrt(hash_rows (e^t - t - 1)): 0.1 % of a million ids in a million rows. Where no row is left
    unused there is no telling; the answer is then that of half a row left, a lower bound.
    """
    if used_rows == 0 or hash_rows == 1:
        return float(used_rows)
    left = max(hash_rows - used_rows, 0.5)
    return math.log(left / hash_rows) / math.log1p(-1 / hash_rows)


def sharing_ids(ids: float, hash_rows: int) -> float:
    """The share of `ids` distinct ids that are expected to share their row with another, 0 to 1.

    1 - (1 - 1 / hash_rows)^(ids - 1)
    """
    if ids <= 1:
        return 0.0
    return 1.0 if hash_rows == 1 else -math.expm1((ids - 1) * math.log1p(-1 / hash_rows))
