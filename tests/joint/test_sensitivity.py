"""The sensitivity pass against a loop over examples, and what it promises."""

import pytest
import torch

from autoembed.data.batch import Bag, Batch
from autoembed.joint.sensitivity import measure_sensitivity
from autoembed.models import ModelConfig, build_network

FIRST_ROWS = (0, 5)
ROWS, DIM = 12, 3


def network(name: str, batch_norm: bool = False) -> torch.nn.Module:
    config = ModelConfig(name=name, dim=DIM, hidden=(7,), batch_norm=batch_norm)
    return build_network(config, 2, 1, torch.Generator().manual_seed(1))


def batch(pooling: str | None, size: int = 11) -> Batch:
    generator = torch.Generator().manual_seed(2)
    ids = torch.stack(
        [torch.randint(5, (size,), generator=generator), torch.randint(7, (size,), generator=generator)], 1
    )
    bags = {}
    if pooling:
        ids[:, 1] = 0
        # every id of a bag differs from the others, some bags are empty
        lengths = torch.arange(size) % 4
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        values = torch.cat([torch.randperm(7, generator=generator)[:n] for n in lengths])
        bags = {1: Bag(values, offsets, pooling)}
    return Batch(torch.zeros(size), torch.randn(size, 1, generator=generator), ids, bags)


def looped(net: torch.nn.Module, weight: torch.Tensor, whole: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """V and H by one backward pass per example over a leaf table."""
    second, grams = torch.zeros(ROWS, DIM), torch.zeros(2, DIM, DIM)
    net.eval()
    for i in range(len(whole)):
        table = weight.clone().requires_grad_()
        if whole.bags:
            bag = whole.bags[1]
            chosen = table[5 + bag.values[bag.offsets[i] : bag.offsets[i + 1]]]
            pooled = chosen.sum(0) / (max(len(chosen), 1) if bag.pooling == "mean" else 1)
        else:
            pooled = table[5 + whole.ids[i, 1]]
        logit = net(whole.dense[i : i + 1], torch.stack([table[whole.ids[i, 0]], pooled]).unsqueeze(0))
        logit.sum().backward()
        p = logit.sigmoid().item()
        second += p * (1 - p) * table.grad.square()
        for field, rows in enumerate((table.grad[:5], table.grad[5:])):
            grams[field] += p * (1 - p) * rows.T @ rows
    return second, grams


@pytest.mark.parametrize("name", ["dlrm", "dnn", "dcn", "dcnv2", "deepfm", "ipnn"])
@pytest.mark.parametrize("pooling", [None, "sum", "mean"])
def test_one_pass_equals_one_backward_pass_per_example(name, pooling):
    net, whole = network(name, batch_norm=True), batch(pooling)
    weight = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(3))
    found = measure_sensitivity(net, weight, FIRST_ROWS, [whole])
    second, grams = looped(net, weight, whole)
    torch.testing.assert_close(found.second, second, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.field_gram.float(), grams, rtol=1e-4, atol=1e-6)
    assert found.examples == len(whole)


def test_bags_alone_are_summed_as_beside_a_field_of_single_ids():
    """A field that all logits ignore changes nothing for the bag's."""
    whole = batch("mean")
    bags = Batch(whole.labels, whole.dense, whole.ids[:, 1:], {0: whole.bags[1]})

    class LastField(torch.nn.Module):
        def forward(self, dense, vectors):
            return (vectors[:, -1] * torch.arange(1.0, DIM + 1)).sum(1).tanh()

    weight = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(3))
    both = measure_sensitivity(LastField(), weight, FIRST_ROWS, [whole])
    alone = measure_sensitivity(LastField(), weight[5:], (0,), [bags])
    torch.testing.assert_close(alone.second, both.second[5:])
    torch.testing.assert_close(alone.field_gram[0], both.field_gram[1])


def test_sums_do_not_depend_on_the_cut_into_batches_and_stop_where_told():
    net, whole = network("dlrm"), batch(None)
    weight = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(3))
    cut = [
        Batch(whole.labels[s], whole.dense[s], whole.ids[s], {})
        for s in (slice(0, 4), slice(4, 9), slice(9, 11))
    ]
    together, apart = (measure_sensitivity(net, weight, FIRST_ROWS, each) for each in ([whole], cut))
    torch.testing.assert_close(together.second, apart.second)
    assert measure_sensitivity(net, weight, FIRST_ROWS, cut, max_examples=5).examples == 9


def test_the_network_keeps_its_mode_and_its_gradients():
    net = network("dnn", batch_norm=True).train()
    measure_sensitivity(net, torch.ones(ROWS, DIM), FIRST_ROWS, [batch(None)])
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_small_change_costs_what_the_sums_say():
    """The increase of the loss against the model's own predictions, measured and predicted."""
    net, whole = network("dnn"), batch(None)
    weight = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(3)).double()
    net = net.double()
    whole = Batch(whole.labels, whole.dense.double(), whole.ids, {})
    found = measure_sensitivity(net, weight, FIRST_ROWS, [whole])

    def logits(table):
        return net(whole.dense, table[whole.ids + torch.tensor(FIRST_ROWS)])

    with torch.no_grad():
        before, row = logits(weight), int(whole.ids[0, 0])
        changed = weight.clone()
        changed[row, 1] += 1e-4
        p = before.sigmoid()
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        measured = float(loss(logits(changed), p) - loss(before, p))
    predicted = 0.5 * float(found.second[row, 1]) * 1e-8 / len(whole)
    assert measured == pytest.approx(predicted, rel=1e-2)


def test_correlations_have_a_unit_diagonal_also_where_nothing_was_seen():
    found = measure_sensitivity(network("dnn"), torch.ones(ROWS, DIM), FIRST_ROWS, [])
    torch.testing.assert_close(found.correlation(0), torch.eye(DIM))
