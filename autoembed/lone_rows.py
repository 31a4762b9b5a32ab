"""Batches of a single row, which batch normalisation cannot train on: one row has no variance.

Where the network has such layers, the last batch of an epoch is left out if it is a single row. Rows are
shuffled, so that another one is left out each time.
"""

from collections.abc import Iterator

from torch import nn

from autoembed.config import ConfigError
from autoembed.data.batch import Batch


def without_lone_row(batches: Iterator[Batch], network: nn.Module) -> Iterator[Batch]:
    """The batches that `network` can train on."""
    normalises = _normalises(network)
    return (batch for batch in batches if len(batch) > 1 or not normalises)


def trained_rows(rows: int, batch_size: int, network: nn.Module) -> int:
    """Rows of an epoch over `rows` rows in batches of `batch_size`.

    Raises ConfigError where none is left.
    """
    if rows == 0 or not _normalises(network):
        return rows
    if batch_size == 1:
        raise ConfigError(
            "keys 'training.batch_size' and 'model.batch_norm': a batch of one row cannot be normalised; "
            "raise batch_size, or set batch_norm: false"
        )
    if rows == 1:
        raise ConfigError(
            "key 'model.batch_norm': the train split has one row, which cannot be normalised; "
            "set batch_norm: false, or train on more rows"
        )
    return rows - (rows % batch_size == 1)


def _normalises(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm1d) for module in network.modules())
