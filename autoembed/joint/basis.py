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

EXAMPLES = 16_384  # of the train split: only sums over many look-ups are read


@torch.no_grad()
def in_basis(trunk: Trunk, data: Examples, stats: Stats, seed: int) -> tuple[Trunk, RowOrder]:
    """The same model with more of its rows in their first dimensions, where its network allows that, and the
    order in which its rows, still by frequency here, are best cut into groups.

    Changes the trunk's network. What it takes is counted in the trunk's `basis_seconds`.
    """
    started = time.process_time()
    batches = data.batches("train", EVALUATION_BATCH, shuffle_seed=seed)
    first = tuple(stats.first_rows)
    found = measure_sensitivity(trunk.network, trunk.rows, first, batches, max_examples=EXAMPLES)
    order = learned_order(trunk.rows, found, stats)
    rotation = principal_rotation(trunk.rows, found)
    if absorb_rotation(trunk.network, rotation, len(stats.fields)):
        trunk = replace(trunk, rows=trunk.rows @ rotation)
    return replace(trunk, basis_seconds=time.process_time() - started), order
