"""How a walk writes the trunk down: which direction a row's columns have, and in which order rows stand."""

import time
from dataclasses import replace

import torch

from autoembed.data.row_order import RowOrder
from autoembed.evaluate import EVALUATION_BATCH
from autoembed.joint.order import learned_order
from autoembed.joint.rotation import absorb_rotation, principal_rotation
from autoembed.joint.sensitivity import measure_sensitivity
from autoembed.joint.trunk import Trunk
from autoembed.stats import Stats
from autoembed.training_loop import Examples

EXAMPLES = 8_192  # of the train split: only sums over many look-ups are read


@torch.no_grad()
def in_basis(
    trunk: Trunk, data: Examples, stats: Stats, seed: int, *, ordered: bool = True
) -> tuple[Trunk, RowOrder | None]:
    """The same model with more of its rows in their first dimensions, where its network allows that, and the
    order in which its rows, still by frequency here, are best cut into groups; None unless `ordered`.

    Changes the trunk's network. What it takes is counted in the trunk's `basis_seconds`.
    """
    started = time.perf_counter(), time.process_time()
    batches = data.batches("train", EVALUATION_BATCH, shuffle_seed=seed)
    first = tuple(stats.first_rows)
    found = measure_sensitivity(trunk.network, trunk.rows, first, batches, max_examples=EXAMPLES)
    order = learned_order(trunk.rows, found, stats) if ordered else None
    rotation = principal_rotation(trunk.rows, found)
    if absorb_rotation(trunk.network, rotation, len(stats.fields)):
        trunk = replace(trunk, rows=trunk.rows @ rotation)
    seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    return replace(trunk, basis_seconds=seconds, basis_cpu_seconds=cpu_seconds), order
