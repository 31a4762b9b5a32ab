"""The trunk as a teacher: its predictions of the train split, cached once, in the place of the labels.

The distillation loss a BCE(z, p) + (1 - a) BCE(z, y), with the teacher's probability p and the label y, is
linear in its targets: it equals BCE(z, a p + (1 - a) y). One soft label per row therefore says all of it, and
the soft labels lie where the labels lay, so that they stay with their rows however batches are shuffled.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from autoembed.evaluate import EVALUATION_BATCH, predict
from autoembed.training_loop import Examples


class Relabelled(Examples, Protocol):
    """Examples that can be had once more under other labels of `train`."""

    def relabelled(self, labels: npt.NDArray[np.float32]) -> Examples: ...


def teacher_logits(
    data: Examples, network: nn.Module, embeddings: nn.Module, device: torch.device
) -> npt.NDArray[np.float32]:
    """Logits (rows of train,) float32 in the data's order: one streaming pass without gradients."""
    return predict(network, embeddings, data.batches("train", EVALUATION_BATCH), device)


def taught(data: Relabelled, logits: npt.NDArray[np.float32], weight: float) -> Examples:
    """`data` with soft labels: `weight` of the teacher's probabilities, the rest of the labels."""
    probabilities = torch.from_numpy(logits).double().sigmoid().numpy()
    soft = weight * probabilities + (1.0 - weight) * data.labels("train")
    return data.relabelled(soft.astype(np.float32))
