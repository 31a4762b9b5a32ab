"""The tables file: one safetensors file with the tensors offsets, scales, projections, index and payload.

It is written by hand and not by the safetensors library, so that the same tables give the same bytes with
every version of the library; it is read by the library, which checks its structure (docs/format.md).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from autoembed.directory import encode, read_directory
from autoembed.files import write_file
from autoembed.plan import FILE_METADATA, TENSORS, Plan, plan_bytes, tables_header
from autoembed.segment_index import check_segment_index

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "U8": torch.uint8}


class TablesError(ValueError):
    """A tables file cannot be used: it is cut off, altered, or of another version."""


def write_tables(path: Path, plan: Plan, tensors: Mapping[str, Tensor]) -> int:
    """Write the file, whole or not at all; returns its bytes, which are `plan_bytes(plan).total` exactly.

    `tensors` holds payload, scales, offsets, projections and segment_index as `autoembed.packed.Packed` does.
    """
    index = torch.frombuffer(bytearray(encode(plan)), dtype=torch.uint8)
    tensors = {**tensors, "index": torch.cat([index, tensors["segment_index"]])}
    del tensors["segment_index"]
    header = tables_header({name: t.numel() * t.element_size() for name, t in tensors.items()})
    parts = [tensors[name].numpy().data.cast("B") for name in TENSORS if len(tensors[name])]
    written = write_file(path, [header, *parts])
    expected = plan_bytes(plan).total
    if written != expected:
        raise AssertionError(f"{path}: {written} bytes were written, the byte model says {expected}")
    return written


def read_tables(path: Path, names: Sequence[str] | None = None) -> tuple[Plan, dict[str, Tensor]]:
    """The plan and the tensors payload, scales, offsets, projections and segment_index.

    Raises TablesError where the file is not exactly what `write_tables` would write for its plan. The values
    of rows and scales are not checked here; an artifact's checksums do that.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata, found = file.metadata(), set(file.keys())
            if metadata != FILE_METADATA:
                raise TablesError(
                    f"{path}: expected a file with metadata {FILE_METADATA}, found {metadata}; "
                    "it is no tables file or comes from another version"
                )
            if not {"index"} <= found <= set(TENSORS):
                raise TablesError(f"{path}: expected tensors {sorted(TENSORS)}, found {sorted(found)}")
            tensors = {
                name: file.get_tensor(name) if name in found else torch.zeros(0, dtype=_DTYPES[dtype])
                for name, (dtype, _) in TENSORS.items()
            }
    except FileNotFoundError:
        raise TablesError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise TablesError(f"{path}: cut off, altered or no tables file: {error}") from None
    index = tensors["index"]
    if index.dtype != torch.uint8 or index.dim() != 1:
        raise TablesError(f"{path}: its index is {tuple(index.shape)} of {index.dtype}, not bytes")
    try:
        plan, size = read_directory(index.numpy().data.cast("B"), names)
    except ValueError as error:
        raise TablesError(f"{path}: {error}") from None
    _check_sizes(path, plan, tensors)
    tensors["segment_index"] = tensors.pop("index")[size:].clone()
    try:
        check_segment_index(plan, tensors["segment_index"])
    except ValueError as error:
        raise TablesError(f"{path}: {error}") from None
    return plan, tensors


def _check_sizes(path: Path, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    expected = plan_bytes(plan)
    for name, (dtype, width) in TENSORS.items():
        tensor, size = tensors[name], getattr(expected, name)
        if tensor.dtype != _DTYPES[dtype] or tensor.shape != (size // width,):
            raise TablesError(
                f"{path}: its plan needs {size} bytes of {dtype} {name}, "
                f"found shape {tuple(tensor.shape)} of {tensor.dtype}"
            )
    if path.stat().st_size != expected.total:
        raise TablesError(f"{path}: {path.stat().st_size} bytes, its plan needs {expected.total}")
