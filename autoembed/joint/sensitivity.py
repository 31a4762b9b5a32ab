"""How much the loss minds a change of every stored value: one pass over examples, no labels.

With frozen weights let z_i be the logit of example i, p_i its probability, and J = dz_i / dw the gradient of
the logit by the vector of one look-up. The loss against the model's own predictions has no first-order term
and the Gauss-Newton second-order term

    increase = 1/2 sum over look-ups p (1 - p) <J, change of w>^2 / examples.

The pass keeps the diagonal of it per row, V = sum p (1 - p) J^2 (R, D), from which every choice of every
group is priced in closed form (prices.py); and per field the D x D matrix H = sum p (1 - p) J J^T, which
tells how dimensions go together (and gives the rotation, rotation.py). LeCun, Denker and Solla, "Optimal
brain damage", NIPS 1989; Dong et al., "HAWQ", arXiv:1905.03696.

The signed first-order term on labelled data is left out on purpose: the solver fits the labels through it.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from autoembed.data.batch import Batch
from autoembed.lookup import Lookup, look_up
from autoembed_kernels.add_rows import add_rows


@dataclass(frozen=True)
class Sensitivity:
    """Sums over `examples` examples.

    second (R, D): of p (1 - p) J^2 by global row; field_gram (F, D, D) float64: of p (1 - p) J J^T by
    field; `seconds` the pass took.
    """

    second: Tensor
    field_gram: Tensor
    first_rows: tuple[int, ...]
    examples: int
    seconds: float

    def going_on_from(self, older: "Sensitivity", share: float) -> "Sensitivity":
        """These sums and a share of those at older weights, whose examples count by the same share.

        Takes the place of these sums, which are as large as the table.
        """
        return replace(
            self,
            second=self.second.add_(older.second, alpha=share),
            field_gram=self.field_gram.add_(older.field_gram, alpha=share),
            examples=self.examples + round(share * older.examples),
        )

    def correlation(self, field: int) -> Tensor:
        """(D, D) float32: H of the field, scaled to a unit diagonal; the identity where nothing was seen."""
        gram = self.field_gram[field]
        spread = gram.diagonal().sqrt()
        scaled = gram / (spread.unsqueeze(1) * spread).clamp(min=1e-30)
        scaled.fill_diagonal_(1.0)
        return scaled.float()


def measure_sensitivity(
    network: nn.Module,
    weight: Tensor,
    first_rows: tuple[int, ...],
    batches: Iterable[Batch],
    *,
    max_examples: int | None = None,
) -> Sensitivity:
    """One pass over `batches` with frozen weights.

    weight (R, D): the vector that a look-up of every global row returns now, on the network's device;
    `max_examples`: stop after the batch that reaches it. The network runs in evaluation mode, in which the
    logits of a batch do not depend on each other, and is restored. Memory: twice the table.
    Several copies of an id in one bag count as so many look-ups, as if they changed independently.
    """
    started = time.perf_counter()
    device = weight.device
    firsts = torch.tensor(first_rows, dtype=torch.int64, device=device)
    second = torch.zeros_like(weight)
    grams = torch.zeros(len(first_rows), weight.shape[1], weight.shape[1], dtype=torch.float64, device=device)
    examples = 0
    training = network.training
    network.eval()
    try:
        for batch in batches:
            batch = batch.to(device)
            lookup = look_up(batch, firsts)
            rows, gradients = logit_gradients(network, weight, lookup)
            add_rows(second, rows, gradients.square())
            for field, part in _by_field(lookup, gradients):
                grams[field] += (part.T @ part).double()
            examples += len(batch)
            if max_examples is not None and examples >= max_examples:
                break
    finally:
        network.train(training)
    return Sensitivity(second, grams, first_rows, examples, time.perf_counter() - started)


def logit_gradients(network: nn.Module, weight: Tensor, lookup: Lookup) -> tuple[Tensor, Tensor]:
    """Rows (N,) of a batch's look-ups, and sqrt(p (1 - p)) dz / dw (N, D) of each."""
    # without gradients of the network's own weights, which take a sixth of the time
    frozen = {name: parameter.detach() for name, parameter in network.named_parameters()}
    with torch.enable_grad():
        vectors = weight.detach().index_select(0, lookup.rows).requires_grad_()
        logits = functional_call(network, frozen, (lookup.batch.dense, lookup.pool(vectors)))
        (gradients,) = torch.autograd.grad(logits.sum(), vectors)
    probabilities = logits.detach().sigmoid()
    root = (probabilities * (1.0 - probabilities)).sqrt()
    return lookup.rows, gradients * root[_examples(lookup)].unsqueeze(1)


def _examples(lookup: Lookup) -> Tensor:
    """The example of every look-up (N,)."""
    size = len(lookup.batch)
    device = lookup.rows.device
    numbers = torch.arange(size, device=device)
    parts = [numbers.repeat_interleave(len(lookup.single))]
    for _, bag in sorted(lookup.batch.bags.items()):
        parts.append(numbers.repeat_interleave(bag.offsets.diff()))
    return torch.cat(parts)


def _by_field(lookup: Lookup, values: Tensor) -> list[tuple[int, Tensor]]:
    """Look-ups' values (N, D), cut into fields."""
    singles = len(lookup.single)
    start = len(lookup.batch) * singles
    columns = values[:start].view(len(lookup.batch), singles, values.shape[1])
    parts = [(field, columns[:, place]) for place, field in enumerate(lookup.single)]
    for field, bag in sorted(lookup.batch.bags.items()):
        parts.append((field, values[start : start + len(bag.values)]))
        start += len(bag.values)
    return parts
