"""Would a scale for every row pay? The solver's best plans with and without such choices, by predicted loss.

    python studies/joint/row_scales.py frappe epinions ml1m [--prepared DIR] [--seed 1]

Trains the full-precision recipe of studies/references, rotates it and prices the joint menu as the joint
search does, with rows by frequency, without labels or the test split. To the menu come the same integer rows,
whole and prefixes, with a step of their own in half precision: 2 bytes a row more, no scale for a segment.
Prices are not calibrated, for both alike. Prints by compression ratio the predicted loss with them over that
without.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sensitivity import BATCH, reference
from torch import Tensor

from autoembed.joint.choices import Choice, allowed, menu, row_bytes, run_bytes
from autoembed.joint.groups import Group, groups_of
from autoembed.joint.knapsack import solve
from autoembed.joint.planner import PRICED_EXAMPLES
from autoembed.joint.prices import price
from autoembed.joint.problem import Problem
from autoembed.joint.rotation import absorb_rotation, principal_rotation
from autoembed.joint.sensitivity import Sensitivity, measure_sensitivity
from autoembed.joint.stored_values import STEP_POINTS
from autoembed.methods.base import TableSpec
from autoembed.plan import BITS
from autoembed.training import denormals_are_zero
from autoembed_kernels.lsq import Grid
from autoembed_kernels.step_errors import step_errors

RATIOS = (8, 12, 16, 24, 32, 64, 128)
SCALE_BYTES = 2
SEGMENT_SCALE_BYTES = 4  # which rows with scales of their own do without


def study(name: str, prepared: Path, seed: int) -> dict[str, float]:
    """By compression ratio, predicted loss with scales by row over that without."""
    trunk = reference(name, prepared, seed)
    spec, rows, network = trunk.spec, trunk.rows, trunk.network

    def sensitivity(rows: Tensor) -> Sensitivity:
        batches = trunk.data.batches("train", BATCH, shuffle_seed=seed)
        firsts = spec.stats.first_rows
        return measure_sensitivity(network, rows, firsts, batches, max_examples=PRICED_EXAMPLES)

    with denormals_are_zero():
        rotation = principal_rotation(rows, sensitivity(rows))
        if absorb_rotation(network, rotation, len(spec.stats.fields)):
            rows = rows @ rotation
        found = sensitivity(rows)
    groups, choices = groups_of(spec.stats), menu(spec)
    own = [c for c in choices if c.sharing == "own" and c.precision.startswith("int") and not c.parts]
    plain = price(rows, found, groups, choices)
    scaled = torch.tensor([[row_scale_price(rows, found, g, c) for c in own] for g in groups])
    return {
        str(ratio): round(
            _best(spec, groups, choices, plain, ratio, own, scaled)
            / _best(spec, groups, choices, plain, ratio),
            4,
        )
        for ratio in RATIOS
    }


def row_scale_price(rows: Tensor, found: Sensitivity, group: Group, choice: Choice) -> float:
    """As prices.price, of all rows of the group, each with the step of its own that loses the least."""
    first = found.first_rows[group.field]
    values = rows[first + group.start : first + group.stop]
    second = found.second[first + group.start : first + group.stop]
    bits = BITS[choice.precision]
    grid = Grid(bits, mid_rise=bits <= 2)
    part, weight = values[:, : choice.dim], second[:, : choice.dim] + 1e-20
    largest = part.abs().amax(1, keepdim=True).clamp(min=1e-8) / max(grid.highest + grid.shift, 0.5)
    steps = (largest * torch.logspace(-1.6, 0.0, STEP_POINTS)).half().float().clamp(min=6e-8)  # (N, points)
    errors = step_errors(part, weight, torch.ones(len(part), dtype=torch.int64), steps, grid).sum(2)
    step = steps.gather(1, errors.argmin(1, keepdim=True))
    codes = (part / step - grid.shift).round().clamp(grid.lowest, grid.highest)
    read = torch.zeros_like(values)
    read[:, : choice.dim] = (codes + grid.shift) * step
    change = (read - values) * second.sqrt()
    turned = change @ found.correlation(group.field)
    return 0.5 * float((turned * change).sum().double()) / found.examples


def _best(
    spec: TableSpec,
    groups: Sequence[Group],
    choices: Sequence[Choice],
    plain: Tensor,
    ratio: int,
    own: Sequence[Choice] = (),
    scaled: Tensor | None = None,
) -> float:
    """Predicted loss of the best plan within the payload of full precision over the ratio."""
    every = [*choices, *own]
    can = torch.tensor([[allowed(g, c) for c in every] for g in groups])
    losses = plain if scaled is None else torch.cat([plain, scaled.double()], dim=1)
    sizes = np.array([[row_bytes(spec.profile, g, c) for c in every] for g in groups])
    runs = np.array([[run_bytes(spec, g.field, c) for c in every] for g in groups])
    for column in range(len(choices), len(every)):
        sizes[:, column] += SCALE_BYTES * np.array([g.stop - g.start for g in groups])
        runs[:, column] -= SEGMENT_SCALE_BYTES
    problem = Problem(
        losses=torch.where(can, losses, float("inf")).numpy(),
        sizes=sizes,
        run=runs,
        joins=np.array([c.sharing != "one" for c in every]),
        field=np.array([g.field for g in groups]),
        fixed=0,
    )
    (solution,) = solve(problem, [spec.stats.rows * spec.dim * 4 // ratio])
    return solution.loss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["frappe", "epinions", "ml1m"])
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.names:
        print(name, json.dumps(study(name, arguments.prepared, arguments.seed)), flush=True)


if __name__ == "__main__":
    main()
