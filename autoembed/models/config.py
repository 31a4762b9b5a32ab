"""The `model` section of a study file: which network stands over the embeddings, and its size."""

from typing import Annotated, Literal

from pydantic import Field

from autoembed.config import Section

Width = Annotated[int, Field(ge=1, le=65536)]


class ModelConfig(Section):
    """A network and the output dimension of the embeddings under it."""

    name: Literal["dlrm", "dnn", "dcn", "dcnv2", "deepfm", "ipnn"] = "dlrm"
    dim: Annotated[int, Field(ge=1, le=4096, description="embedding dimension")] = 16
    hidden: Annotated[tuple[Width, ...], Field(description="widths of the (top) MLP")] = (256, 128)
    bottom: Annotated[
        tuple[Width, ...], Field(description="dlrm: widths of the MLP over dense columns, before `dim`")
    ] = (64,)
    concat_embeddings: Annotated[
        bool, Field(description="dlrm: the top MLP also sees the embeddings, not only their products")
    ] = True
    cross_layers: Annotated[int, Field(ge=1, le=16, description="dcn, dcnv2: cross layers")] = 3
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    batch_norm: bool = False
