"""The rotation changes no logit, is refused where it would, and packs rows into their first dimensions."""

import copy

import pytest
import torch

from autoembed.joint.rotation import absorb_rotation, principal_rotation
from autoembed.joint.sensitivity import Sensitivity
from autoembed.models import ModelConfig, build_network

FIELDS, DIM = 3, 6


def orthogonal() -> torch.Tensor:
    return torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1)))[0]


def network(name: str, dense: int, **settings) -> torch.nn.Module:
    config = ModelConfig(name=name, dim=DIM, **{"hidden": (7, 5), "batch_norm": True, **settings})
    return build_network(config, FIELDS, dense, torch.Generator().manual_seed(2)).eval()


@pytest.mark.parametrize(
    ("name", "dense", "settings"),
    [
        ("dlrm", 0, {}),
        ("dlrm", 0, {"hidden": ()}),
        ("dlrm", 0, {"concat_embeddings": False}),
        ("dnn", 2, {}),
        ("ipnn", 2, {}),
        ("deepfm", 2, {}),
        ("deepfm", 0, {"hidden": ()}),
    ],
)
def test_rotated_rows_under_the_rotated_network_give_the_same_logits(name, dense, settings):
    before = network(name, dense, **settings)
    after, rotation = copy.deepcopy(before), orthogonal()
    assert absorb_rotation(after, rotation, FIELDS)
    generator = torch.Generator().manual_seed(3)
    columns = torch.randn(40, dense, generator=generator)
    rows = torch.randn(40, FIELDS, DIM, generator=generator)
    with torch.no_grad():
        # float32 sums of some ten terms
        torch.testing.assert_close(
            after(columns, rows @ rotation), before(columns, rows), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(("name", "dense"), [("dcn", 0), ("dcnv2", 0), ("dlrm", 2)])
def test_networks_that_cannot_absorb_it_say_so_and_stay_as_they_are(name, dense):
    found = network(name, dense)
    before = copy.deepcopy(found.state_dict())
    assert not absorb_rotation(found, orthogonal(), FIELDS)
    assert all(torch.equal(value, before[key]) for key, value in found.state_dict().items())


def test_no_other_rotation_keeps_more_of_the_weighted_rows_in_a_prefix():
    generator = torch.Generator().manual_seed(4)
    rows = torch.randn(50, DIM, generator=generator) @ torch.randn(DIM, DIM, generator=generator)
    second = torch.rand(50, DIM, generator=generator)
    gram = torch.zeros(1, DIM, DIM, dtype=torch.float64)
    found = principal_rotation(rows, Sensitivity(second, gram, (0,), 50, 0.0))
    torch.testing.assert_close(found.T @ found, torch.eye(DIM), atol=1e-5, rtol=0)

    def kept(rotation: torch.Tensor) -> torch.Tensor:
        return ((rows @ rotation).square() * second.mean(1, keepdim=True)).sum(0).cumsum(0)

    for rival in (torch.eye(DIM), orthogonal()):
        assert (kept(found)[:-1] > kept(rival)[:-1]).all()
