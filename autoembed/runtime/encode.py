"""Raw columns -> a Batch, as preparing the training log would have made it.

A missing value, None or NaN, reads row 0, in a bag it is left out; an id that is not in the vocabulary reads
row 0. Of a field without a vocabulary every id reads the row that it is hashed to.
Dense columns are transformed with the train split's numbers, in float64, then cast to float32.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from autoembed.data.bag_weights import weights_of, wrong_weights
from autoembed.data.batch import Bag, Batch
from autoembed.data.hashed_ids import FieldIds
from autoembed.data.vocabulary import RepeatedIdError, plain_array, without_nan
from autoembed.runtime.manifest import ArtifactError


@dataclass(frozen=True)
class RawField:
    """A categorical column: its vocabulary or hash, how a bag is written and pooled, its weights' column."""

    name: str
    vocabulary: FieldIds
    bag: bool
    pooling: str
    separator: str
    weights: str | None = None

    @property
    def columns(self) -> list[str]:
        """The raw columns that it is read from."""
        return [self.name] if self.weights is None else [self.name, self.weights]


@dataclass(frozen=True)
class RawDense:
    """A dense column: `log` sign(x) ln(1 + |x|), `standard` (x - mean) / std, `none` x; missing -> 0."""

    name: str
    kind: str
    mean: float
    std: float


def encode_columns(
    columns: Mapping[str, Any], fields: Sequence[RawField], dense: Sequence[RawDense], label: str
) -> Batch:
    """Columns of equal length (lists, NumPy or pyarrow arrays), or a pyarrow table of them -> a Batch.

    Other columns are ignored.

    Labels are taken from the column `label`, zeros where there is none. Columns of no rows may have any type.
    Raises ValueError naming the column that is missing, of another length, or of a type that its field cannot
    read, and ArtifactError, which is one, naming the field whose vocabulary holds an id twice.
    """
    if isinstance(columns, pa.Table | pa.RecordBatch):
        columns = dict(zip(columns.schema.names, columns.columns, strict=True))
    elif not hasattr(columns, "keys"):  # a data frame has some, and is no Mapping
        raise ValueError(f"expected columns by name, found {type(columns).__name__}; pass a dict or a table")
    names = [name for field in fields for name in field.columns] + [column.name for column in dense]
    missing = [name for name in names if name not in columns]
    if missing:
        raise ValueError(f"missing columns: {', '.join(missing)}; given are {', '.join(columns) or 'none'}")
    names += [label] if label in columns else []
    arrays = {name: _array(name, columns[name]) for name in names}
    size = len(arrays[fields[0].name])
    for name, array in arrays.items():
        if len(array) != size:
            raise ValueError(f"column {name!r} has {len(array)} values, {fields[0].name!r} has {size}")
    ids = np.zeros((size, len(fields)), dtype=np.int64)
    bags: dict[int, Bag] = {}
    for position, field in enumerate(fields):
        if field.bag:
            bags[position] = _bag(field, *(arrays[name] for name in field.columns))
        else:
            ids[:, position] = _rows(field, arrays[field.name])
    matrix = np.zeros((size, len(dense)), dtype=np.float32)
    for position, column in enumerate(dense):
        matrix[:, position] = transformed(column, _numbers(column.name, arrays[column.name]))
    labels = np.zeros(size, dtype=np.float32)
    if label in arrays:
        labels = _numbers(label, arrays[label]).astype(np.float32)
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f"label {label!r} must be 0 or 1 in every row")
    return Batch(torch.from_numpy(labels), torch.from_numpy(matrix), torch.from_numpy(ids), bags)


def _array(name: str, values: Any) -> pa.Array:
    unordered = isinstance(values, Set | Mapping)
    if unordered or isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ValueError(
            f"column {name!r} is {values!r}, expected a value for every row; pass a list or an array"
        )
    try:
        array = plain_array(values)
    except OverflowError:
        raise ValueError(
            f"column {name!r} holds a whole number of more than 64 bits, or one from 2**63 on beside one "
            "below 0; pass None in place of such an id, a float in place of such a dense value"
        ) from None
    except UnicodeEncodeError as error:
        raise ValueError(
            f"column {name!r} holds text that is no Unicode ({error}); pass None for it"
        ) from None
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"column {name!r} mixes types or holds no plain values: {error}") from None
    except pa.ArrowNotImplementedError as error:
        raise ValueError(f"column {name!r} has a type that cannot be read: {error}") from None
    return array if len(array) else pa.nulls(0)


def _rows(field: RawField, values: pa.Array) -> npt.NDArray[np.int64]:
    try:
        return field.vocabulary.lookup(values)
    except (TypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"column {field.name!r}: {error}") from None
    except RepeatedIdError as error:
        raise ArtifactError(f"field {field.name!r}: {error}; export the model again") from None


def _bag(field: RawField, values: pa.Array, weights: pa.Array | None = None) -> Bag:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = pc.split_pattern(values, field.separator)
        pieces, lengths = values.flatten(), pc.list_value_length(values)
        kept = pc.fill_null(pc.not_equal(pieces, ""), False)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        pieces, lengths = without_nan(plain_array(values.flatten())), pc.list_value_length(values)
        kept = pieces.is_valid()
    elif pa.types.is_null(kind):
        pieces, kept = pa.nulls(0), pa.array([], pa.bool_())
        lengths = pa.array(np.zeros(len(values), dtype=np.int64))
    else:
        raise ValueError(f"column {field.name!r} is a bag, expected lists of ids or text, found {kind}")
    lengths = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    kept = kept.to_numpy(zero_copy_only=False).astype(bool)
    owners = np.repeat(np.arange(len(lengths)), lengths)[kept]
    rows = _rows(field, pieces.filter(pa.array(kept)))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(lengths)))]).astype(np.int64)
    weighed = None if weights is None else torch.from_numpy(_weights(field, lengths, kept, weights))
    return Bag(torch.from_numpy(rows), torch.from_numpy(offsets), field.pooling, weighed)


def _weights(
    field: RawField, lengths: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_], column: pa.Array
) -> npt.NDArray[np.float32]:
    """Weights of the ids that are kept. Raises ValueError naming the first row whose weights are wrong."""
    assert field.weights is not None
    weight_lengths, weights = weights_of(column, field.weights, field.separator)
    differ, wrong = wrong_weights(lengths, kept, weight_lengths, weights, field.pooling)
    if differ.any():
        row = int(differ.argmax())
        raise ValueError(
            f"row {row}: {field.name!r} has {lengths[row]} elements, "
            f"{field.weights!r} has {weight_lengths[row]}; write a weight for each"
        )
    if wrong.any():
        least = "at least 0 and finite" if field.pooling == "mean" else "a finite number"
        raise ValueError(
            f"row {int(wrong.argmax())}: column {field.weights!r} holds a weight that is not {least}"
        )
    return weights[kept].astype(np.float32)


def _numbers(name: str, values: pa.Array) -> npt.NDArray[np.float64]:
    """float64 (B,), NaN where missing."""
    kind = values.type
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        try:
            values = values.cast(pa.timestamp("us")).cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise ValueError(f"column {name!r}: {error}") from None
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    elif not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_null(kind)
    ):
        raise ValueError(f"column {name!r} holds {kind}, expected numbers")
    numbers = np.array(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    if (np.abs(numbers) > np.finfo(np.float32).max).any():
        raise ValueError(f"column {name!r} holds a number that is infinite or too large for float32")
    return numbers


def transformed(column: RawDense, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Values (N,), NaN where missing, as the network sees them."""
    if column.kind == "log":
        values = np.sign(values) * np.log1p(np.abs(values))
    elif column.kind == "standard":
        values = (values - column.mean) / column.std
    return np.where(np.isnan(values), 0.0, values)
