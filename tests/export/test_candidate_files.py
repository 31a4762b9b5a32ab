from pathlib import Path

import pytest
import torch
from exported_model import MODEL, exported

from autoembed.export.candidate import load_candidate, save_candidate
from autoembed.models import ModelConfig


def test_a_candidate_comes_back_as_it_was(tmp_path: Path) -> None:
    trained, data = exported().trained, exported().data
    save_candidate(tmp_path / "trial", trained.packed, trained.network)
    packed, network = load_candidate(tmp_path / "trial", MODEL, data)
    assert packed.plan == trained.packed.plan
    assert torch.equal(packed.payload, trained.packed.payload)
    assert torch.equal(packed.scales, trained.packed.scales)
    expected = trained.network.state_dict()
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert not network.training


def test_a_candidate_of_another_model_or_without_files_is_refused(tmp_path: Path) -> None:
    trained, data = exported().trained, exported().data
    with pytest.raises(ValueError, match="no such file"):
        load_candidate(tmp_path, MODEL, data)
    save_candidate(tmp_path, trained.packed, trained.network)
    with pytest.raises(ValueError, match=r"network\.safetensors: its tensors are not those of model 'dnn'"):
        load_candidate(tmp_path, ModelConfig(name="dnn", dim=MODEL.dim), data)
