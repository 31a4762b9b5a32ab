"""A categorical column of a chunk: its distinct values with their keys, and which of them each row holds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from autoembed.config import ConfigError
from autoembed.data.bag_weights import lengths_of, split_text, weights_of
from autoembed.data.config import Categorical
from autoembed.data.keys import Keys, buckets, integer_keys, string_keys
from autoembed.data.vocabulary import Kind, as_int64, plain_array

# by name: older pyarrow has no views
_PLAIN_OF_VIEW = {"string_view": pa.large_string(), "binary_view": pa.large_binary()}


@dataclass(frozen=True)
class Encoded:
    """A categorical column of a chunk: distinct values (V,) without nulls, and their use.

    codes (N,) int32 index `values`, -1 = missing. lengths (B,) int32 for a bag: its ids lie behind one
    another in `codes`, missing elements are dropped; None for single ids, where N = B. weights (N,) float32
    of a bag's ids, where it has some.
    """

    values: pa.Array
    keys: Keys
    exact: bool
    kind: Kind
    codes: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int32] | None
    weights: npt.NDArray[np.float32] | None = None


def encode_column(
    column: pa.Array, name: str, settings: Categorical, file: Path, seed: int, weights: pa.Array | None = None
) -> Encoded:
    """Single ids or bags, from a `plain_or_dictionary` column; `seed` is that of the keys; `weights`, as
    `wrong_weights` lets them pass, of a bag that has some.

    Raises ConfigError, naming the file and the column, for types that cannot be ids.
    """
    kind = column.type
    if settings.bag:
        flat = None
        if weights is not None and settings.weights is not None:
            _, flat = weights_of(weights, settings.weights, settings.separator)
        return _bag(bag_lists(column, name, settings, file), name, file, seed, flat)
    if _is_list(kind):
        raise ConfigError(f"{file}: column {name!r} holds lists; set 'bag: true' for it")
    values, codes, id_kind = _distinct(column, name, file, settings.bucketize)
    keys, exact = _keys(values, id_kind, seed)
    return Encoded(values, keys, exact, id_kind, codes, None)


def bag_lists(column: pa.Array, name: str, settings: Categorical, file: Path) -> pa.Array:
    """A bag's `plain_or_dictionary` column -> lists of ids. Raises ConfigError for other types."""
    kind = column.type
    if _is_list(kind):
        return column
    if pa.types.is_null(kind):
        return column.cast(pa.list_(pa.null()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        column, kind = _as_ids(column, kind, name, file)[0], pa.large_string()
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return split_text(column, settings.separator)
    raise ConfigError(f"{file}: column {name!r} is a bag, expected lists or text, found {kind}")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)  # type: ignore[no-any-return]


def plain_or_dictionary(column: pa.ChunkedArray) -> pa.Array:
    """One array; text becomes dictionary-encoded, with distinct values and no nulls among them."""
    kind = column.type
    if pa.types.is_dictionary(kind):  # as written by others, values may repeat
        column, kind = column.cast(kind.value_type), kind.value_type
    if plain := _PLAIN_OF_VIEW.get(str(kind)):
        column, kind = column.cast(plain), plain
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.dictionary_encode()
    if column.num_chunks == 0:
        return pa.array([], column.type)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _bag(
    lists: pa.Array, name: str, file: Path, seed: int, weights: npt.NDArray[np.float64] | None
) -> Encoded:
    lengths = lengths_of(lists)
    values, codes, kind = _distinct(lists.flatten(), name, file, False)
    missing = codes < 0
    if missing.any():
        owners = np.repeat(np.arange(len(lengths)), lengths)
        lengths = lengths - np.bincount(owners[missing], minlength=len(lengths))
        codes = codes[~missing]
        weights = weights[~missing] if weights is not None else None
    keys, exact = _keys(values, kind, seed)
    weighed = weights.astype(np.float32) if weights is not None else None
    return Encoded(values, keys, exact, kind, codes, lengths.astype(np.int32), weighed)


def _distinct(
    column: pa.Array, name: str, file: Path, bucketize: bool
) -> tuple[pa.Array, npt.NDArray[np.int32], Kind]:
    """Distinct non-null values, the code of every row (-1 = missing), and what the values are."""
    id_kind: Kind = "buckets"
    if bucketize:
        column = buckets(_parsed(column, name, file))
    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not bucketize:
        column, id_kind = _as_ids(column, plain, name, file)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return encoded.dictionary, codes, id_kind


def _as_ids(column: pa.Array, kind: pa.DataType, name: str, file: Path) -> tuple[pa.Array, Kind]:
    """The column as int64 or text. Raises ConfigError for what cannot be an id."""
    if pa.types.is_uint64(kind):
        return as_int64(column), "integers"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column, "strings"
    if pa.types.is_null(kind):
        return column.cast(pa.int64()), "integers"
    if plain := _PLAIN_OF_VIEW.get(str(kind)):  # in a list
        return _as_ids(column.cast(plain), plain, name, file)
    try:
        if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind):
            return as_int64(column), "integers"
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return column.cast(pa.large_string()), "strings"
    except pa.ArrowInvalid as error:
        raise ConfigError(
            f"{file}: column {name!r} ({kind}) does not hold ids: {error}; "
            "name it under dense or set 'bucketize: true'"
        ) from None
    raise ConfigError(f"{file}: column {name!r} holds {kind}, expected whole numbers or text as ids")


def _parsed(column: pa.Array, name: str, file: Path) -> pa.Array:
    plain = plain_array(column)
    try:
        return plain.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ConfigError(f"{file}: column {name!r} is to be bucketized but holds no numbers") from None


def _keys(values: pa.Array, kind: Kind, seed: int) -> tuple[Keys, bool]:
    if kind == "strings":
        return string_keys(values, seed)
    return integer_keys(values.to_numpy(zero_copy_only=False)), True
