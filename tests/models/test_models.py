"""What every network promises, and the products of pairs against the obvious loop."""

import pytest
import torch
from torch import Tensor

from autoembed.config import ConfigError, parse
from autoembed.models import NETWORKS, ModelConfig, build_network
from autoembed.models.layers import PairProducts, head, mlp

SETTINGS = [
    ModelConfig(name="dlrm", dim=4, hidden=(8, 5), bottom=(6,)),
    ModelConfig(name="dlrm", dim=4, hidden=(8,), concat_embeddings=False),
    ModelConfig(name="dnn", dim=4, hidden=(8, 5), dropout=0.3, batch_norm=True),
    ModelConfig(name="dnn", dim=3, hidden=()),
    ModelConfig(name="dcn", dim=4, hidden=(8,), cross_layers=2, batch_norm=True),
    ModelConfig(name="dcn", dim=3, hidden=()),
    ModelConfig(name="dcnv2", dim=4, hidden=(8,), cross_layers=2),
    ModelConfig(name="dcnv2", dim=3, hidden=()),
    ModelConfig(name="deepfm", dim=4, hidden=(8,)),
    ModelConfig(name="ipnn", dim=4, hidden=(8,), batch_norm=True),
]
every_network = pytest.mark.parametrize("config", SETTINGS, ids=lambda c: f"{c.name}-{c.hidden}")


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _inputs(config: ModelConfig, size: int, fields: int, dense: int) -> tuple[Tensor, Tensor]:
    generator = _generator(5)
    return (
        torch.randn(size, dense, generator=generator),
        torch.randn(size, fields, config.dim, generator=generator, requires_grad=True),
    )


def test_every_network_has_a_setting() -> None:
    assert {config.name for config in SETTINGS} == set(NETWORKS)


@every_network
@pytest.mark.parametrize(("fields", "dense"), [(3, 2), (3, 0), (1, 0), (1, 3)])
def test_one_logit_per_example_and_a_gradient_for_every_parameter(
    config: ModelConfig, fields: int, dense: int
) -> None:
    if config.name == "dlrm" and not config.concat_embeddings and fields == 1 and dense == 0:
        with pytest.raises(ValueError, match="concat_embeddings"):
            build_network(config, fields, dense, _generator(0))
        return
    network = build_network(config, fields, dense, _generator(0))
    columns, embeddings = _inputs(config, 7, fields, dense)
    logits = network(columns, embeddings)
    assert logits.shape == (7,)
    (logits * torch.randn(7, generator=_generator(1))).sum().backward()
    assert embeddings.grad is not None and embeddings.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in network.parameters())


@every_network
def test_the_same_generator_gives_the_same_network(config: ModelConfig) -> None:
    first, second, third = (build_network(config, 3, 2, _generator(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), third.parameters(), strict=True))


@every_network
def test_initialisation_leaves_the_global_generator_alone_in_effect(config: ModelConfig) -> None:
    torch.manual_seed(1)
    first = build_network(config, 3, 2, _generator(0))
    torch.manual_seed(2)
    second = build_network(config, 3, 2, _generator(0))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@every_network
def test_an_empty_batch_gives_no_logits(config: ModelConfig) -> None:
    network = build_network(config, 3, 2, _generator(0)).eval()
    assert network(torch.zeros(0, 2), torch.zeros(0, 3, config.dim)).shape == (0,)


@every_network
def test_twenty_steps_lower_the_loss(config: ModelConfig) -> None:
    network = build_network(config, 3, 2, _generator(0))
    columns, embeddings = _inputs(config, 64, 3, 2)
    labels = (columns[:, 0] + embeddings.detach()[:, 0, 0] > 0).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    torch.manual_seed(0)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            network(columns, embeddings.detach()), labels
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_dlrm_has_no_bottom_tower_without_dense_columns() -> None:
    config = ModelConfig(name="dlrm", dim=4, hidden=(8,))
    names = [name for name, _ in build_network(config, 3, 0, _generator(0)).named_parameters()]
    assert names and not any(name.startswith("bottom") for name in names)


def test_dcn_crosses_by_hand() -> None:
    network = build_network(ModelConfig(name="dcn", dim=2, hidden=(), cross_layers=1), 1, 0, _generator(0))
    values = {
        "cross.0.weight": [3.0, 1.0],
        "cross.0.bias": [0.5, -1.0],
        "out.weight": [[1.0, 10.0, 0.0, 0.0]],
    }
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.tensor(values.get(name, [0.0])))
    # w . x = 5: x + 5 x + b = (6.5, 11) for x = (1, 2)
    logits = network(torch.zeros(1, 0), torch.tensor([[[1.0, 2.0]]]))
    torch.testing.assert_close(logits, torch.tensor([6.5 + 110.0]))


def test_deepfm_second_order_is_the_sum_of_pair_products() -> None:
    config = ModelConfig(name="deepfm", dim=4, hidden=(8,))
    network = build_network(config, 5, 0, _generator(0))
    _, embeddings = _inputs(config, 6, 5, 0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        logits = network(torch.zeros(6, 0), embeddings)
    torch.testing.assert_close(logits, _pair_products(embeddings.detach()).sum(1), rtol=1e-5, atol=1e-5)


def _pair_products(vectors: Tensor) -> Tensor:
    count = vectors.shape[1]
    columns = [(vectors[:, i] * vectors[:, j]).sum(1) for i in range(count) for j in range(i + 1, count)]
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("size", [1, 5])
def test_pair_products_and_their_gradient_equal_the_loop(count: int, size: int) -> None:
    vectors = torch.randn(size, count, 3, generator=_generator(2), dtype=torch.float64, requires_grad=True)
    products = PairProducts(count)(vectors)
    expected = _pair_products(vectors)
    torch.testing.assert_close(products, expected)
    weights = torch.randn(products.shape, generator=_generator(3), dtype=torch.float64)
    (fast,) = torch.autograd.grad((products * weights).sum(), vectors)
    (slow,) = torch.autograd.grad((expected * weights).sum(), vectors)
    torch.testing.assert_close(fast, slow)


def test_an_mlp_without_widths_is_the_identity() -> None:
    inputs = torch.randn(2, 3, generator=_generator(0))
    assert torch.equal(mlp(3, (), _generator(0))(inputs), inputs)


def test_an_unknown_key_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'dropout'"):
        parse(ModelConfig, {"droput": 0.1}, "study.yaml")


def test_layers_are_one_after_the_other_however_they_are_put_together() -> None:
    generator = torch.Generator().manual_seed(0)
    for options in ({}, {"dropout": 0.5}, {"batch_norm": True}):
        layers = head(30, (700, 500), generator, **options).eval()
        inputs = torch.randn(200, 30, generator=generator, requires_grad=True)
        expected = inputs
        for layer in layers:
            # a copy, for ReLU works in place
            expected = layer(expected.clone())
        found = layers(inputs)
        torch.testing.assert_close(found, expected)
        wanted = [inputs, *layers.parameters()]
        for one, other in zip(
            torch.autograd.grad(found.square().sum(), wanted),
            torch.autograd.grad(expected.square().sum(), wanted),
            strict=True,
        ):
            # sums over 200 examples in another order
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
