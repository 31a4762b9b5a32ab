from pathlib import Path

import pytest
import torch
from exported_model import MODEL, exported

from autoembed.damage import DamagedError
from autoembed.export.candidate import load_candidate, save_candidate
from autoembed.models import ModelConfig


def test_a_candidate_comes_back_as_it_was(tmp_path: Path) -> None:
    trained, data = exported().trained, exported().data
    checksums = save_candidate(tmp_path / "trial", trained.packed, trained.network)
    packed, network = load_candidate(tmp_path / "trial", MODEL, data, checksums)
    assert packed.plan == trained.packed.plan
    assert torch.equal(packed.payload, trained.packed.payload)
    assert torch.equal(packed.scales, trained.packed.scales)
    expected = trained.network.state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert not network.training


def test_a_candidate_of_another_model_or_without_files_is_refused(tmp_path: Path) -> None:
    trained, data = exported().trained, exported().data
    with pytest.raises(DamagedError, match=r"tables\.safetensors: there is no such file; copy it back, or"):
        load_candidate(tmp_path, MODEL, data, {})
    save_candidate(tmp_path, trained.packed, trained.network)
    with pytest.raises(ValueError, match=r"network\.safetensors: its tensors are not those of model 'dnn'"):
        load_candidate(tmp_path, ModelConfig(name="dnn", dim=MODEL.dim), data, {})


@pytest.mark.parametrize("name", ["tables.safetensors", "network.safetensors"])
def test_one_altered_byte_of_a_candidate_is_found_and_named(tmp_path: Path, name: str) -> None:
    trained, data = exported().trained, exported().data
    checksums = save_candidate(tmp_path, trained.packed, trained.network)
    content = bytearray((tmp_path / name).read_bytes())
    content[-5] ^= 1
    (tmp_path / name).write_bytes(content)
    load_candidate(tmp_path, MODEL, data, {})  # as long and as well formed as before
    remedy = f"copy it back, or remove {tmp_path / 'record.json'} and run again"
    with pytest.raises(DamagedError, match=rf"{name}: altered.*{remedy}"):
        load_candidate(tmp_path, MODEL, data, checksums)
    (tmp_path / name).write_bytes(content[:-5])
    with pytest.raises(DamagedError, match=f"{name}: cut off or altered, {len(content) - 5} bytes instead"):
        load_candidate(tmp_path, MODEL, data, checksums)
    (tmp_path / name).unlink()
    with pytest.raises(DamagedError, match=f"{name}: missing; copy it back"):
        load_candidate(tmp_path, MODEL, data, checksums)
