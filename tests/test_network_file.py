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


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_network_larger_than_its_file_is_refused_before_memory_is_taken(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "network.safetensors"
    write_network(path, build_network(config(name), 3, 2, torch.Generator().manual_seed(1)))

    def build(config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> torch.nn.Module:
        network = build_network(config, fields, dense, generator)
        assert all(tensor.is_meta for tensor in network.state_dict().values())
        return network

    monkeypatch.setattr("autoembed.network_file.build_network", build)
    wide = config(name).model_copy(update={"hidden": (65536, 65536)})  # 17 GB
    with pytest.raises(NetworkError, match=f"not those of model '{name}'"):
        read_network(path, wide, 3, 2)
    with pytest.raises(NetworkError, match=f"not those of model '{name}'"):
        read_network(path, config(name).model_copy(update={"dim": 4096}), 2**22, 2)


def test_the_file_of_another_network_is_refused(tmp_path: Path) -> None:
    write_network(
        tmp_path / "network.safetensors",
        build_network(config("dcn"), 3, 2, torch.Generator().manual_seed(1)),
    )
    with pytest.raises(NetworkError):
        read_network(tmp_path / "network.safetensors", config("dcnv2"), 3, 2)
    with pytest.raises(NetworkError):
        read_network(tmp_path / "network.safetensors", config("dcn", cross_layers=3), 3, 2)
