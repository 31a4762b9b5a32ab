"""One rotation of all rows that the network absorbs: the same function, with more in the first dimensions.

Every row becomes w R with one orthogonal R (D, D) for all fields. Dot products of rows do not change, and a
linear map of a row, A w, stays what it was when A becomes A R. So the model computes the same logits, while a
prefix of a row, which is what a smaller dimension stores, now holds the most of it: R are the eigenvectors of

    sum over rows of s_r w_r w_r^T,     s_r = the row's mean sensitivity

in falling order, so that cutting rows at any d loses the least s-weighted square. Not centred: what is cut
reads as zero. The rotation and the weights it meets move together, so it must come before sensitivities are
measured, and a calibrated price of a prefix is needed to judge it (calibration.py).
"""

import torch
from torch import Tensor, nn

from autoembed.joint.sensitivity import Sensitivity
from autoembed.models.deepfm import DeepFM
from autoembed.models.dlrm import DLRM
from autoembed.models.dnn import DNN
from autoembed.models.ipnn import IPNN


def principal_rotation(rows: Tensor, sensitivity: Sensitivity) -> Tensor:
    """The orthogonal R (D, D) float32 for rows (R, D)."""
    values = rows.double()
    importance = sensitivity.second.double().mean(1, keepdim=True)
    vectors: Tensor = torch.linalg.eigh((values * importance).T @ values).eigenvectors
    return vectors.flip(1).to(rows.dtype).contiguous()


@torch.no_grad()
def absorb_rotation(network: nn.Module, rotation: Tensor, fields: int) -> bool:
    """Change the network so that rows times `rotation` give the logits that the rows gave.

    False, with nothing changed, where no change of its weights can do so: dcnv2 multiplies dimension by
    dimension, and dlrm with dense columns takes products of rows with the output of a ReLU.
    """
    if isinstance(network, DLRM):
        if network.bottom is not None:
            return False
        if network.concat_embeddings:
            _absorb(network.top[0], len(network.products.upper), rotation, fields)
        return True
    if isinstance(network, DNN | IPNN):
        layer = network.head[0]
        behind = len(network.products.upper) if isinstance(network, IPNN) else 0
        _absorb(layer, _inputs(layer) - behind - fields * len(rotation), rotation, fields)
        return True
    if isinstance(network, DeepFM):
        for layer in (network.first_order, network.deep[0]):
            _absorb(layer, _inputs(layer) - fields * len(rotation), rotation, fields)
        return True
    return False


def _absorb(layer: nn.Module, start: int, rotation: Tensor, fields: int) -> None:
    """A -> A R in the columns of each field, which begin at `start`."""
    assert isinstance(layer, nn.Linear)
    dim = len(rotation)
    columns = layer.weight[:, start : start + fields * dim]
    rotated = columns.reshape(-1, fields, dim).double() @ rotation.double()
    columns.copy_(rotated.reshape(-1, fields * dim))


def _inputs(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Linear)
    return layer.in_features
