"""A trained candidate kept in a folder of the search, to be exported later.

tables.safetensors    the packed tables, the very file that an artifact holds
network.safetensors   the dense network
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import nn

from autoembed.damage import Checksums, check_checksums, checksums_of, readable
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


def save_candidate(folder: Path, packed: Packed, network: nn.Module) -> Checksums:
    """Write both files, each whole or not at all; returns their checksums. The folder is created."""
    folder.mkdir(parents=True, exist_ok=True)
    packed.save(folder / TABLES)
    write_network(folder / NETWORK, network)
    return checksums_of(folder, (TABLES, NETWORK))


def load_candidate(
    folder: Path, model: ModelConfig, data: Columns, checksums: Checksums
) -> tuple[Packed, nn.Module]:
    """Read both files back; the network is in evaluation mode.

    `checksums`: what `save_candidate` returned, {} where an earlier version kept none. Raises DamagedError
    naming the file and what to do where one is missing, altered, or not made for this model and data.
    """
    remedy = f"copy it back, or remove {folder / 'record.json'} and run again what made it"
    check_checksums(folder, checksums, remedy)
    with readable(folder / TABLES, remedy):
        packed = Packed.load(folder / TABLES, [field.name for field in data.fields])
    with readable(folder / NETWORK, remedy):
        network = read_network(folder / NETWORK, model, len(data.fields), len(data.dense))
    return packed, network
