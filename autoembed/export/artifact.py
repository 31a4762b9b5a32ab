"""Write a compressed model as a folder that any machine can load, and check what was written.

docs/format.md describes the folder. It is written beside its place and renamed into it, so that it is
there whole or not at all.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autoembed.data.batch import Batch
from autoembed.data.prepared import PreparedData
from autoembed.data.publish import whole_folder
from autoembed.directory import plan_json
from autoembed.evaluate import predict
from autoembed.files import write_file
from autoembed.models import ModelConfig
from autoembed.network_file import write_network
from autoembed.packed import Packed
from autoembed.plan import Plan, plan_bytes
from autoembed.runtime.artifact import Artifact, load
from autoembed.runtime.manifest import (
    FILES,
    FORMAT,
    MANIFEST,
    NETWORK,
    TABLES,
    VERSION,
    VOCABULARY,
    ArtifactError,
    describe_files,
    manifest_bytes,
)
from autoembed.vocabulary_file import write_vocabularies

LARGEST_DIFFERENCE = 1e-5  # of a probability between the candidate and the reloaded model


@dataclass(frozen=True)
class Reference:
    """What an artifact must predict: a trained network over its embeddings, both on the CPU.

    `embeddings` maps a Batch to (B, F, D).
    """

    network: nn.Module
    embeddings: nn.Module


@dataclass(frozen=True)
class Verified:
    """A checked artifact. `largest_difference` is of probabilities over `examples`; None if not compared."""

    artifact: Artifact
    table_bytes: int
    examples: int
    largest_difference: float | None


def write_artifact(
    out: Path,
    *,
    packed: Packed,
    network: nn.Module,
    model: ModelConfig,
    data: PreparedData,
    metrics: dict[str, dict[str, float]],
    provenance: dict[str, Any],
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write tables, network, vocabulary and manifest into the folder `out`; returns the manifest.

    metrics: split -> {"auc": ..., "logloss": ...}; provenance: whatever JSON says how it was trained.
    Raises ValueError where `out` exists and `overwrite` is not set, or the tables are not of this data.
    """
    _check_place(out, overwrite)
    _check_fields(packed.plan, data)
    kept_rows = packed.plan.kept_rows
    full = [data.vocabulary(field) for field in range(len(data.fields))]
    kept = [vocabulary.truncated(rows) for vocabulary, rows in zip(full, kept_rows, strict=True)]
    with whole_folder(out) as folder:
        packed.save(folder / TABLES)
        write_network(folder / NETWORK, network)
        write_vocabularies(folder / VOCABULARY, kept)
        files = describe_files(folder)
        split = plan_bytes(packed.plan)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "files": files,
            "bytes": {
                "tables": {**asdict(split), "total": split.total},
                "network": files[NETWORK]["bytes"],
                "vocabulary": sum(vocabulary.nbytes for vocabulary in kept),
                "vocabulary_unpruned": sum(vocabulary.nbytes for vocabulary in full),
            },
            "plan": plan_json(packed.plan),
            "model": model.model_dump(mode="json"),
            "data": _describe(data, kept_rows),
            "metrics": metrics,
            "provenance": provenance,
        }
        content = manifest_bytes(manifest)
        write_file(folder / MANIFEST, [content])
    return load(out).manifest


def verify_artifact(
    path: Path, *, against: Reference | None = None, batches: Iterable[Batch] = ()
) -> Verified:
    """Reload an artifact: checksums, the tables' size under the byte model, and predictions.

    Raises ArtifactError where a file is damaged, and where a probability on `batches` differs from that of
    `against` by more than LARGEST_DIFFERENCE.
    """
    artifact = load(path)
    expected = plan_bytes(artifact.plan).total
    if artifact.table_bytes != expected:
        raise ArtifactError(f"{path / TABLES}: {artifact.table_bytes} bytes, its plan needs {expected}")
    if against is None:
        return Verified(artifact, artifact.table_bytes, 0, None)
    examples, largest = 0, 0.0
    for batch in batches:
        logits = [
            artifact.logits([batch]),
            predict(against.network, against.embeddings, [batch], torch.device("cpu")),
        ]
        ours, theirs = (torch.from_numpy(values).sigmoid().numpy() for values in logits)
        examples += len(batch)
        largest = float(np.max(np.abs(ours - theirs), initial=largest))
    if not largest <= LARGEST_DIFFERENCE:
        raise ArtifactError(
            f"{path}: its predictions differ from the trained candidate's by up to {largest:g}, allowed are "
            f"{LARGEST_DIFFERENCE:g}; do not use it"
        )
    return Verified(artifact, artifact.table_bytes, examples, largest)


def _check_place(out: Path, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    # prepared data has a manifest of that name too
    if not (out / MANIFEST).is_file() or not any((out / name).is_file() for name in FILES):
        raise ValueError(f"{out} exists and is no exported model; choose another place")
    if not overwrite:
        raise ValueError(f"{out} exists; choose another place or allow overwriting it")


def _check_fields(plan: Plan, data: PreparedData) -> None:
    planned = [(field.name, field.rows) for field in plan.fields]
    found = [(field.name, field.rows) for field in data.fields]
    if planned != found:
        differing = next((pair for pair in zip(planned, found, strict=False) if pair[0] != pair[1]), None)
        raise ValueError(
            f"{data.path}: the tables were not made for this data; "
            f"{len(planned)} and {len(found)} fields, first difference {differing}"
        )


def _describe(data: PreparedData, kept_rows: tuple[int, ...]) -> dict[str, Any]:
    """What a server needs to read raw columns as the training log was read."""
    entries = data.manifest["fields"]
    return {
        "fingerprint": data.fingerprint,
        **({} if data.order is None else {"prepared_fingerprint": data.prepared_fingerprint}),
        "label": data.manifest["config"]["label"],
        "fields": [
            {
                "name": entry["name"],
                "kind": entry["kind"],
                "rows": entry["rows"],
                "kept_rows": rows,
                "bag": entry["bag"],
                "pooling": entry["pooling"],
                "separator": entry["separator"],
                **{key: entry[key] for key in ("weights", "hash_rows") if key in entry},
            }
            for entry, rows in zip(entries, kept_rows, strict=True)
        ],
        "dense": [
            {key: entry[key] for key in ("name", "kind", "mean", "std")} for entry in data.manifest["dense"]
        ],
    }
