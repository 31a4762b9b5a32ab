"""Columns on disk: .npy files written piece by piece with a checksum, and raw columns between passes.

Plain writes instead of memory maps, so that pages of the output never count as the process's memory.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
READ_ROWS = 1 << 20


class NpyWriter:
    """Writes an .npy file of a known shape; `close` returns its size and checksum for the manifest."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._expected = int(np.prod(shape, dtype=np.int64)) * self._dtype.itemsize
        self._hash = hashlib.blake2b(digest_size=16)
        self._file = path.open("wb")
        np.lib.format.write_array_header_1_0(
            self._file,
            {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape},
        )
        self._header_bytes = self._file.tell()
        self._file.flush()
        self._hash.update(path.read_bytes())
        self._size = self._header_bytes

    def append(self, values: Array) -> None:
        """The next values, in row-major order."""
        data = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(data.data)
        self._hash.update(data.data)
        self._size += data.nbytes

    def close(self) -> dict[str, Any]:
        if self._size != self._header_bytes + self._expected:
            raise RuntimeError(f"{self._path}: wrote {self._size} bytes, its header promises other rows")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
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
        self._file = path.open("wb")
        self.length = 0

    def append(self, values: Array) -> None:
        data = np.ascontiguousarray(values, dtype=self._dtype)
        self._file.write(data.data)
        self.length += len(data)

    def finish(self) -> None:
        self._file.close()

    def pieces(self, rows: int = READ_ROWS) -> Iterator[Array]:
        """The column from its start, `rows` values at a time."""
        with self._path.open("rb") as file:
            while len(piece := np.fromfile(file, self._dtype, rows)):
                yield piece

    def pieces_of(self, lengths: Iterator[int]) -> Iterator[Array]:
        """The column from its start, in pieces of the given lengths."""
        with self._path.open("rb") as file:
            for length in lengths:
                yield np.fromfile(file, self._dtype, length)

    def remove(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
