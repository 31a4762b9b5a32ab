"""The dense network as a file: the tensors of its state dictionary, by safetensors."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from autoembed.files import write_file
from autoembed.models import ModelConfig, build_network

NETWORK_METADATA = {"format": "autoembed-network 1"}


class NetworkError(ValueError):
    """A network file cannot be used: it is cut off, altered, or of another model."""


def write_network(path: Path, network: nn.Module) -> int:
    """Write the network's parameters and buffers, whole or not at all; returns the bytes written."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return write_file(path, [save(state, metadata=NETWORK_METADATA)])


def read_network(path: Path, config: ModelConfig, fields: int, dense: int) -> nn.Module:
    """Build the network of `config` and fill it from the file; in evaluation mode, on the CPU.

    Raises NetworkError where the file is no network file or its tensors are not those of the model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() != NETWORK_METADATA:
                raise NetworkError(
                    f"{path}: expected a file with metadata {NETWORK_METADATA}, found {file.metadata()}"
                )
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise NetworkError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"{path}: cut off, altered or no network file: {error}") from None
    try:
        with torch.device("meta"):  # sizes are compared with the file's before memory is taken for them
            shapes = build_network(config, fields, dense, torch.Generator("cpu"))
        shapes.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise NetworkError(f"{path}: its tensors are not those of model {config.name!r}: {error}") from None
    network = build_network(config, fields, dense, torch.Generator().manual_seed(0))
    network.load_state_dict(state)
    return network.eval()
