"""Predictions of a network over any embeddings: a trainable table, or packed tables."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from autoembed.data.batch import Batch
from autoembed.metrics import Metrics, measure

EVALUATION_BATCH = 8192  # examples; only memory and speed depend on it


def predict(
    network: nn.Module, embeddings: nn.Module, batches: Iterable[Batch], device: torch.device
) -> npt.NDArray[np.float32]:
    """Logits (N,) of all examples, in order. Both modules are used in evaluation mode and restored."""
    modes = network.training, embeddings.training
    network.eval()
    embeddings.eval()
    logits = [np.zeros(0, dtype=np.float32)]
    try:
        with torch.no_grad():
            for batch in batches:
                batch = batch.to(device)
                logits.append(network(batch.dense, embeddings(batch)).float().cpu().numpy())
    finally:
        network.train(modes[0])
        embeddings.train(modes[1])
    return np.concatenate(logits)


def evaluate(
    network: nn.Module,
    embeddings: nn.Module,
    batches: Iterable[Batch],
    labels: npt.NDArray[np.float32],
    device: torch.device,
) -> Metrics:
    """AUC and log loss of the predictions against labels (N,) in the same order."""
    return measure(labels, predict(network, embeddings, batches, device))
