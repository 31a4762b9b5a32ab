"""Prices made right by measured swaps: what a change costs beyond the quadratic, and off the train split.

A price in closed form is too low, the more so the larger the change: the quadratic ends early, and a model
is surer of the train split, where sensitivities were summed, than of others. For a sample of choices, one
of every kind, each group is swapped alone on held-out examples (swaps.py). With price p and increase m of
group g under a choice of kind k

    log m = a_k + e log p + b_g

is fitted robustly (Huber weights), b_g shrunk towards 0, the more the fewer examples look the group up. It is
monotone in p: the exponent e is held in [0.5, 2]. Where the very choice was measured in the very group, the
price moves on to the measurement by n / (n + 50) of the way, n being the examples that saw the swap.

Kinds: zero, one, hashed, codebook, `dim d` of a prefix, int1, int2, and `bits` for all finer formats. Rows in
parts are of the kind of their coarsest part, and are not swapped: plain rows speak for them.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoembed.joint.plan_reader import PlanReader
from autoembed.joint.stored_values import ChoiceLike
from autoembed.joint.swaps import HeldOut

TRUSTED_EXAMPLES = 50.0  # so many examples count as much as the fit of the kind
EXPONENTS = (0.5, 2.0)
_ROUNDS = 8  # of reweighting
_HUBER = 1.0  # residuals of a factor above e weigh less
_LEAST = 1e-10  # prices and increases below are noise of float32


@dataclass(frozen=True)
class Calibration:
    """What the swaps taught. `factors`: geometric mean of increase over price by kind, before calibration.

    kind_shift: a_k by kind; exponent: e; group_shift (G,): b_g; residual (G, C): the rest, for measured
    choices. error_before and error_after: root mean square of log(increase / price) over the swaps, the
    second without the residuals.
    """

    kind_shift: dict[str, float]
    exponent: float
    group_shift: Tensor
    residual: Tensor
    factors: dict[str, float]
    error_before: float
    error_after: float
    swaps: int
    seconds: float

    def apply(self, choices: Sequence[ChoiceLike], prices: Tensor) -> Tensor:
        """Calibrated prices (G, C) of the same groups and choices, also at later weights."""
        dim = max(choice.dim for choice in choices)
        other = sum(self.kind_shift.values()) / max(len(self.kind_shift), 1)
        shifts = [self.kind_shift.get(kind(choice, dim), other) for choice in choices]
        logs = prices.clamp(min=_LEAST).log() * self.exponent + torch.tensor(shifts, dtype=torch.float64)
        calibrated = (logs + self.group_shift.unsqueeze(1) + self.residual).exp()
        return torch.where(prices > _LEAST, calibrated, prices)


def calibrate(
    held: HeldOut,
    reader: PlanReader,
    choices: Sequence[ChoiceLike],
    prices: Tensor,
    *,
    every_choice: bool = False,
) -> Calibration:
    """Swap every group of `reader` into one choice of each kind, and fit.

    held: held-out examples at the weights that `reader` and `prices` (G, C) belong to. The cost is
    about (kinds x fields) evaluations of the held-out examples. `every_choice`: swap into all choices, not
    one of each kind; the fallback where prices rank plans poorly (additivity.py).
    """
    started = time.perf_counter()
    groups = reader.groups
    dim = max(choice.dim for choice in choices)
    kinds = [kind(choice, dim) for choice in choices]
    names = sorted(set(kinds))
    if every_choice:
        chosen = _priced(prices)
    else:
        chosen = _one_of_each(kinds, [c for c in _priced(prices) if not choices[c].parts], prices)
    kind_of = torch.tensor([names.index(kinds[c]) for c in chosen], dtype=torch.int64)
    increases = torch.zeros(len(groups), len(chosen), dtype=torch.float64)
    examples = torch.zeros(len(groups), len(chosen), dtype=torch.float64)
    everywhere = torch.tensor(chosen, dtype=torch.int64).unsqueeze(1).expand(-1, len(groups))
    for place, vectors in enumerate(reader.read(choices, everywhere, held.rows)):
        found = held.swaps(groups, vectors)
        increases[:, place] = torch.tensor([swap.increase for swap in found])
        examples[:, place] = torch.tensor([float(swap.examples) for swap in found])
    priced = prices[:, chosen]
    use = (priced > _LEAST) & (increases > _LEAST) & (examples > 0)
    log_price, log_increase = priced.clamp(min=_LEAST).log(), increases.clamp(min=_LEAST).log()
    trust = examples / (examples + TRUSTED_EXAMPLES) * use
    shifts, exponent, group_shift = _fit(log_price, log_increase, trust, kind_of)
    fitted = shifts[kind_of] + exponent * log_price + group_shift.unsqueeze(1)
    residual = torch.zeros_like(prices)
    residual[:, chosen] = (log_increase - fitted) * trust
    ratios = log_increase - log_price
    of_kind = {name: (kind_of == number).nonzero().squeeze(1) for number, name in enumerate(names)}
    seen = {name: columns for name, columns in of_kind.items() if use[:, columns].any()}
    return Calibration(
        kind_shift={name: float(shifts[names.index(name)]) for name in seen},
        exponent=exponent,
        group_shift=group_shift,
        residual=residual,
        factors={
            name: float(_mean(ratios[:, columns], trust[:, columns]).exp()) for name, columns in seen.items()
        },
        error_before=float(_mean(ratios.square(), trust).sqrt()),
        error_after=float(_mean((log_increase - fitted).square(), trust).sqrt()),
        swaps=int(use.sum()),
        seconds=time.perf_counter() - started,
    )


def kind(choice: ChoiceLike, dim: int) -> str:
    """The kind of a choice whose full dimension is `dim`: its strongest lever names it."""
    if choice.sharing != "own":
        return choice.sharing
    precision, stored = choice.precision, choice.dim
    if choice.parts:
        # plain rows are cut at halves, quarters, ...
        precision, stored = choice.parts[-1][1], 1 << (stored - 1).bit_length()
    if stored < dim:
        return f"dim {stored}"
    return precision if precision in ("int1", "int2") else "bits"


def _priced(prices: Tensor) -> list[int]:
    """The choices that cost something."""
    return [c for c, total in enumerate(prices.sum(0).tolist()) if total > _LEAST]


def _one_of_each(kinds: list[str], among: list[int], prices: Tensor) -> list[int]:
    """Of each kind, the choice of those `among` with the median price over all groups."""
    total = prices.sum(0).tolist()
    members: dict[str, list[int]] = {}
    for c in sorted(among, key=total.__getitem__):
        members.setdefault(kinds[c], []).append(c)
    return [each[len(each) // 2] for each in members.values()]


def _fit(
    log_price: Tensor, log_increase: Tensor, trust: Tensor, kind_of: Tensor
) -> tuple[Tensor, float, Tensor]:
    """a (K,), e and b (G,) by Huber-reweighted ridge regression.

    Rows are groups, columns measured choices, kind_of (columns,) their kinds.
    """
    groups, measured = log_price.shape
    kinds = int(kind_of.max()) + 1 if measured else 0
    center = _mean(log_price, trust)
    columns = kinds + 1 + groups
    design = torch.zeros(groups, measured, columns, dtype=torch.float64)
    design[:, torch.arange(measured), kind_of] = 1.0
    design[:, :, kinds] = log_price - center
    design[torch.arange(groups), :, kinds + 1 + torch.arange(groups)] = 1.0
    flat, target = design.view(-1, columns), (log_increase - log_price).flatten()
    # e is fitted as 1 + its excess, which a few swaps alone do not move; a group starts as its kind
    ridge = torch.cat([torch.full((kinds,), 1e-3), torch.full((1,), 1.0), torch.ones(groups)]).double()
    weights = trust.flatten()
    found = torch.zeros(columns, dtype=torch.float64)
    for _ in range(_ROUNDS):
        weighted = flat * weights.unsqueeze(1)
        found = torch.linalg.solve(weighted.T @ flat + ridge.diag(), weighted.T @ target)
        off = (target - flat @ found).abs()
        weights = trust.flatten() * (_HUBER / off.clamp(min=_HUBER))
    excess = float(found[kinds].clamp(EXPONENTS[0] - 1.0, EXPONENTS[1] - 1.0))
    return found[:kinds] - excess * center, 1.0 + excess, found[kinds + 1 :]


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-12)
