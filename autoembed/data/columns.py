"""Columns on disk: .npy files written piece by piece with a checksum, and raw columns between passes.

Plain writes instead of memory maps, so that pages of the output never count as the process's memory.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
READ_ROWS = 1 << 20


class NpyWriter:
    """Writes an .npy file of a known shape; `close` returns its size and checksum for the manifest.

    The file is opened for each piece, so nothing is left open where writing fails.
    """

    def __init__(self, path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._hash = hashlib.blake2b(digest_size=16)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header,
            {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape},
        )
        path.write_bytes(header.getvalue())
        self._hash.update(header.getvalue())
        self._size = len(header.getvalue())
        self._expected = self._size + int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize

    def append(self, values: Array) -> None:
        """The next values, in row-major order."""
        data = np.ascontiguousarray(values, dtype=self._dtype)
        with self._path.open("ab") as file:
            file.write(data.data)
        self._hash.update(data.data)
        self._size += data.nbytes

    def close(self) -> dict[str, Any]:
        """Flush to disk."""
        if self._size != self._expected:
            raise RuntimeError(
                f"{self._path}: wrote {self._size} bytes, its header promises {self._expected}"
            )
        with self._path.open("ab") as file:
            os.fsync(file.fileno())
        return {"size": self._size, "blake2b": self._hash.hexdigest()}


def write_npy(path: Path, values: Array) -> dict[str, Any]:
    """A whole array -> size and checksum."""
    writer = NpyWriter(path, values.dtype, values.shape)
    writer.append(values)
    return writer.close()


def file_checksum(path: Path) -> str:
    """The checksum that `NpyWriter.close` reports."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


class RawColumn:
    """An append-only column of one dtype between the two passes, without header."""

    def __init__(self, path: Path, dtype: npt.DTypeLike) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        path.touch()

    def append(self, values: Array) -> None:
        data = np.ascontiguousarray(values, dtype=self._dtype)
        with self._path.open("ab") as file:
            file.write(data.data)

    def pieces(self) -> Iterator[Array]:
        """The column from its start, `READ_ROWS` values at a time."""
        with self._path.open("rb") as file:
            while len(piece := np.fromfile(file, self._dtype, READ_ROWS)):
                yield piece

    def pieces_of(self, lengths: Iterator[int]) -> Iterator[Array]:
        """The column from its start, in pieces of the given lengths."""
        with self._path.open("rb") as file:
            for length in lengths:
                yield np.fromfile(file, self._dtype, length)

    def remove(self) -> None:
        self._path.unlink()
