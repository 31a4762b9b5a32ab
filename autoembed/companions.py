"""What a method asks of the train split beside the counts of `Stats`: computed once, kept beside the data.

A companion is a value (a frozen dataclass) that says what is asked for; `companion_of` answers with a tensor
that has one entry per row of all fields. Only the train split is read. Of prepared data the answer is kept as
DATA/companions/NAME-KEY.npy, where KEY stands for the data's fingerprint and the companion's settings.
"""

import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from autoembed.data.batch import Batch
from autoembed.data.prepared import PreparedData
from autoembed.files import write_file
from autoembed.stats import Stats

FOLDER = "companions"


class Split(Protocol):
    """What a companion reads of prepared data."""

    def rows(self, split: str) -> int: ...
    def batches(self, split: str, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Batch]: ...


class Companion(ABC):
    """One entry per row of all fields, made from the train split. Subclasses are frozen dataclasses.

    `version` changes whenever the same settings give other numbers.
    """

    name: ClassVar[str]
    version: ClassVar[int]

    @abstractmethod
    def compute(self, data: Split, stats: Stats) -> Tensor:
        """(stats.rows,) int64, read from batches of the train split in the order of the log."""


def companion_of(companion: Companion, data: Split, stats: Stats) -> Tensor:
    """The answer to `companion`, (stats.rows,) int64: read from the file beside prepared data, or computed.

    The file is written where there is none; without a right to write there, the answer is just returned.
    """
    path = _path(companion, data) if isinstance(data, PreparedData) else None
    if path is not None and path.is_file():
        kept = _read(path, stats.rows)
        if kept is not None:
            return kept
    computed = companion.compute(data, stats)
    if path is not None:
        with suppress(OSError):
            _write(path, computed)
    return computed


def _path(companion: Companion, data: PreparedData) -> Path:
    settings: dict[str, Any] = asdict(companion)  # type: ignore[call-overload]
    key = json.dumps([data.fingerprint, companion.name, companion.version, settings], sort_keys=True)
    return data.path / FOLDER / f"{companion.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"


def _read(path: Path, rows: int) -> Tensor | None:
    """The kept answer, None where the file is cut off or holds something else."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if values.shape != (rows,) or values.dtype != np.int64:
        return None
    return torch.from_numpy(values)


def _write(path: Path, values: Tensor) -> None:
    path.parent.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.save(content, values.numpy())
    write_file(path, [content.getbuffer()])
