"""A trained candidate kept in a folder of the search, to be exported later.

tables.safetensors    the packed tables, the very file that an artifact holds
network.safetensors   the dense network
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from autoembed.models import ModelConfig
from autoembed.network_file import read_network, write_network
from autoembed.packed import Packed
from autoembed.runtime.manifest import NETWORK, TABLES


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Columns(Protocol):
    """What is read of prepared data: the fields, in order, and the dense columns."""

    @property
    def fields(self) -> Sequence[Named]: ...
    @property
    def dense(self) -> tuple[str, ...]: ...


def save_candidate(folder: Path, packed: Packed, network: nn.Module) -> None:
    """Write both files, each whole or not at all. The folder is created."""
    folder.mkdir(parents=True, exist_ok=True)
    packed.save(folder / TABLES)
    write_network(folder / NETWORK, network)


def load_candidate(folder: Path, model: ModelConfig, data: Columns) -> tuple[Packed, nn.Module]:
    """Read both files back; the network is in evaluation mode.

    Raises ValueError naming the file where one is missing, cut off, or not made for this model and data.
    """
    packed = Packed.load(folder / TABLES, [field.name for field in data.fields])
    network = read_network(folder / NETWORK, model, len(data.fields), len(data.dense))
    return packed, network
