"""The weights of a bag's ids: read beside the ids, and refused where they do not belong to them.

The column of weights holds as many elements as the bag in every row, lists of numbers or text joined by the
bag's separator. An id that is missing needs no weight.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
FLOAT32_MOST = float(np.finfo(np.float32).max)


def split_text(column: pa.Array, separator: str) -> pa.Array:
    """Text with separators, plain or dictionary-encoded -> lists of text; empty pieces become null."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    pieces = pc.split_pattern(encoded.dictionary, separator)
    flat = pieces.flatten()
    flat = pc.if_else(pc.equal(flat, ""), pa.scalar(None, flat.type), flat)
    rebuilt = type(pieces).from_arrays(pieces.offsets, flat) if len(pieces) else pieces
    return rebuilt.take(encoded.indices)


def weights_of(column: pa.Array, name: str, separator: str) -> tuple[npt.NDArray[np.int64], Floats]:
    """-> elements of every row (B,), and all of them behind one another, NaN where there is no number.

    Raises ValueError where the column holds neither text nor lists of numbers.
    """
    kind = column.type
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_null(kind):
        return np.zeros(len(column), dtype=np.int64), np.zeros(0)
    if pa.types.is_string(text) or pa.types.is_large_string(text):
        lists = split_text(column, separator)
        words = lists.flatten().dictionary_encode()
        numbers = np.array([*map(_number, words.dictionary.to_pylist()), np.nan])
        codes = words.indices.fill_null(len(numbers) - 1).to_numpy(zero_copy_only=False)
        return lengths_of(lists), numbers[codes]
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise ValueError(f"column {name!r} weighs a bag, expected lists of numbers or text, found {kind}")
    element = kind.value_type
    is_number = pa.types.is_integer(element) or pa.types.is_floating(element) or pa.types.is_decimal(element)
    if not (is_number or pa.types.is_null(element)):
        raise ValueError(f"column {name!r} weighs a bag, expected numbers in its lists, found {element}")
    flat = column.flatten().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return lengths_of(column), np.array(flat, dtype=np.float64)


def lengths_of(lists: pa.Array) -> npt.NDArray[np.int64]:
    """Elements of every list (B,), 0 where it is missing."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    return np.array(lengths.to_numpy(zero_copy_only=False), dtype=np.int64)


def wrong_weights(
    lengths: npt.NDArray[np.int64],
    present: npt.NDArray[np.bool_],
    weight_lengths: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    pooling: str,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Rows (B,) with another number of weights than ids, and rows with a weight that cannot be used.

    lengths (B,) and present (N,): the elements of the bags and which of them are ids. A weight is finite,
    and not negative where the bag is averaged, as means divide by the sum of the weights.
    """
    differ = lengths != weight_lengths
    present = present[np.repeat(~differ, lengths)]
    used = weights[np.repeat(~differ, weight_lengths)]
    unusable = present & ~(np.abs(used) <= FLOAT32_MOST)
    if pooling == "mean":
        unusable |= present & (used < 0)
    wrong = np.zeros(len(lengths), dtype=bool)
    wrong[np.repeat(np.flatnonzero(~differ), lengths[~differ])[unusable]] = True
    return differ, wrong


def _number(word: str | None) -> float:
    try:
        return float(word or "nan")
    except ValueError:
        return float("nan")
