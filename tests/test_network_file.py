"""Every network, batch norms included, comes back from its file with the same logits."""

from pathlib import Path

import pytest
import torch

from autoembed.models import NETWORKS, ModelConfig, build_network
from autoembed.network_file import NetworkError, read_network, write_network


def config(name: str, cross_layers: int = 2) -> ModelConfig:
    return ModelConfig.model_validate(
        {"name": name, "dim": 4, "hidden": (8, 5), "batch_norm": True, "cross_layers": cross_layers}
    )


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_network_read_back_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    network = build_network(config(name), 3, 2, torch.Generator().manual_seed(1))
    inputs = torch.randn(16, 2), torch.randn(16, 3, 4)
    network.train()(*inputs)  # moves the running means of batch norms
    write_network(tmp_path / "network.safetensors", network)
    again = read_network(tmp_path / "network.safetensors", config(name), 3, 2)
    assert torch.equal(again(*inputs), network.eval()(*inputs))


def test_the_file_of_another_network_is_refused(tmp_path: Path) -> None:
    write_network(
        tmp_path / "network.safetensors",
        build_network(config("dcn"), 3, 2, torch.Generator().manual_seed(1)),
    )
    with pytest.raises(NetworkError):
        read_network(tmp_path / "network.safetensors", config("dcnv2"), 3, 2)
    with pytest.raises(NetworkError):
        read_network(tmp_path / "network.safetensors", config("dcn", cross_layers=3), 3, 2)
