"""Networks over an embedding collection: they take (B, F, D) vectors and know no method and no table."""

import torch
from torch import nn

from autoembed.models.config import ModelConfig as ModelConfig
from autoembed.models.dcn import DCN
from autoembed.models.dcnv2 import DCNv2
from autoembed.models.deepfm import DeepFM
from autoembed.models.dlrm import DLRM
from autoembed.models.dnn import DNN
from autoembed.models.ipnn import IPNN

NETWORKS = {"dlrm": DLRM, "dnn": DNN, "dcn": DCN, "dcnv2": DCNv2, "deepfm": DeepFM, "ipnn": IPNN}


def build_network(config: ModelConfig, fields: int, dense: int, generator: torch.Generator) -> nn.Module:
    """The network of `config` over `fields` embeddings and `dense` columns, initialised from `generator`.

    forward(dense (B, C), embeddings (B, F, D)) -> logits (B,).
    """
    network: nn.Module = NETWORKS[config.name](config, fields, dense, generator)
    return network
