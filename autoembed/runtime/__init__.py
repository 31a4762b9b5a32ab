"""Exported models: load, predict, evaluate. Imports nothing of search and training."""

from autoembed.runtime.artifact import Artifact as Artifact
from autoembed.runtime.artifact import load as load
from autoembed.runtime.manifest import ArtifactError as ArtifactError
