"""An exported model in memory: checked on loading, then raw columns in, probabilities out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from autoembed.config import parse
from autoembed.data.batch import Batch
from autoembed.data.config import DataConfig
from autoembed.data.hashed_ids import HashedIds
from autoembed.data.prepared import PreparedData
from autoembed.data.row_order import RowPlaces
from autoembed.directory import plan_from_json
from autoembed.evaluate import EVALUATION_BATCH, predict
from autoembed.metrics import Metrics, measure
from autoembed.models import ModelConfig
from autoembed.network_file import read_network
from autoembed.packed import Packed, PackedTable
from autoembed.plan import Plan
from autoembed.runtime.encode import RawDense, RawField, encode_columns
from autoembed.runtime.logs import log_batches
from autoembed.runtime.manifest import (
    MANIFEST,
    NETWORK,
    TABLES,
    VOCABULARY,
    ArtifactError,
    check_files,
    read_manifest,
)
from autoembed.vocabulary_file import read_vocabularies


@dataclass(frozen=True)
class Artifact:
    """An exported model. `fields` and `dense` are the raw columns that it reads, in order."""

    manifest: dict[str, Any]
    table: PackedTable
    network: nn.Module
    fields: tuple[RawField, ...]
    dense: tuple[RawDense, ...]
    label: str
    device: torch.device

    @property
    def plan(self) -> Plan:
        return self.table.plan

    @property
    def table_bytes(self) -> int:
        """Bytes of the tables file."""
        return int(self.manifest["files"][TABLES]["bytes"])

    def encode(self, columns: Mapping[str, Any]) -> Batch:
        """Raw columns, name -> list or array, to a Batch. Raises ValueError as `encode_columns`."""
        return encode_columns(columns, self.fields, self.dense, self.label)

    def logits(self, batches: Iterable[Batch]) -> npt.NDArray[np.float32]:
        """Log-odds (N,) of all examples, in order. Raises IndexError as `predict`."""
        return self._logits(check_ids(batch, self.plan) for batch in batches)

    def predict(self, batch: Batch) -> Tensor:
        """Probabilities of a click, (B,) float32 on the CPU.

        Raises IndexError, which names the field, where an id of it, in a bag too, is negative or not below
        its number of rows: another field's row would be read. Batches that `encode` makes have none.
        """
        return torch.from_numpy(self.logits([batch])).sigmoid()

    def predict_raw(self, columns: Mapping[str, Any]) -> Tensor:
        """Probabilities of a click for raw columns, (B,) float32 on the CPU. Raises ValueError as
        `encode_columns`."""
        return torch.from_numpy(self._logits([self.encode(columns)])).sigmoid()

    def evaluate(self, data: PreparedData, split: str = "test") -> Metrics:
        """AUC and log loss on a split of the prepared data that the model was trained on.

        Where the model's rows stand in an order of its own, its vocabulary tells where those of the data
        are. Raises ValueError for other data: its rows have other ranks. `evaluate_raw` reads any log.
        """
        about = self.manifest["data"]
        trained_on = about.get("prepared_fingerprint", about["fingerprint"])
        if data.fingerprint not in (trained_on, about["fingerprint"]):
            raise ValueError(
                f"{data.path} has fingerprint {data.fingerprint}, this model was trained on {trained_on}: "
                "rows stand for other ids there; give it that data, or raw columns (evaluate_raw)"
            )
        batches = data.batches(split, EVALUATION_BATCH)
        if data.fingerprint != about["fingerprint"]:
            batches = map(self._places_of(data).batch, batches)
        return measure(data.labels(split), self._logits(batches))

    def _places_of(self, data: PreparedData) -> RowPlaces:
        """Which of the model's rows every row of the data reads; row 0 where its id was pruned."""
        found = []
        for number, (field, ours) in enumerate(zip(data.fields, self.fields, strict=True)):
            places, theirs = np.zeros(field.rows, dtype=np.int32), data.vocabulary(number)
            if isinstance(ours.vocabulary, HashedIds) or isinstance(theirs, HashedIds):
                places = np.arange(field.rows, dtype=np.int32)
            else:
                # ids as both hold them: raw values would be put into buckets again
                rows = 1 + pc.index_in(ours.vocabulary.values, value_set=theirs.values).to_numpy()
                places[rows] = np.arange(1, ours.vocabulary.rows, dtype=np.int32)
            found.append(places)
        return RowPlaces(tuple(found))

    def evaluate_raw(self, pieces: Iterable[Mapping[str, Any]]) -> Metrics:
        """AUC and log loss on raw columns with the label, a piece of the log at a time."""
        return self._measure(self._labelled(columns) for columns in pieces)

    def evaluate_log(self, config: DataConfig, split: str | None = None) -> Metrics:
        """AUC and log loss on a raw log, which need not be prepared: all rows, or those of a split.

        Ids are looked up in the model's own vocabulary, or hashed as it hashes them. Raises ConfigError as
        `log_batches`.
        """
        return self._measure(log_batches(config, self.fields, self.dense, split))

    def _labelled(self, columns: Mapping[str, Any]) -> Batch:
        if self.label not in columns:
            raise ValueError(f"the label {self.label!r} is missing; given are {', '.join(columns)}")
        return self.encode(columns)

    def _measure(self, batches: Iterable[Batch]) -> Metrics:
        labels, logits = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.float32)]
        for batch in batches:
            labels.append(batch.labels.numpy())
            logits.append(self._logits([batch]))
        return measure(np.concatenate(labels), np.concatenate(logits))

    def _logits(self, batches: Iterable[Batch]) -> npt.NDArray[np.float32]:
        """`logits` of batches whose ids are known to be rows of their fields."""
        return predict(self.network, self.table, batches, self.device)


def check_ids(batch: Batch, plan: Plan) -> Batch:
    """The batch, all of whose ids are rows of their fields. Raises IndexError where one is not, ValueError
    for another number of fields."""
    if batch.ids.shape[1] != len(plan.fields):
        raise ValueError(f"the batch has {batch.ids.shape[1]} fields, the model reads {len(plan.fields)}")
    rows = torch.tensor([field.rows for field in plan.fields], device=batch.ids.device)
    outside = (batch.ids < 0) | (batch.ids >= rows)  # (B, F)
    outside[:, list(batch.bags)] = False  # a bag's column is not read
    if outside.any():
        example, field = outside.nonzero()[0].tolist()
        raise IndexError(_no_row(plan, field, int(batch.ids[example, field])))
    for field, bag in batch.bags.items():
        outside = (bag.values < 0) | (bag.values >= plan.fields[field].rows)
        if outside.any():
            raise IndexError(_no_row(plan, field, int(bag.values[outside.nonzero()[0]])))
    return batch


def _no_row(plan: Plan, field: int, found: int) -> str:
    name, rows = plan.fields[field].name, plan.fields[field].rows
    return f"field {name!r}: id {found} is out of range, the field has {rows} rows; ids are 0 to {rows - 1}"


def load(path: Path | str, device: torch.device | str = "cpu") -> Artifact:
    """Open an exported model. Every file is checked against the manifest, the tables against the plan.

    Raises ArtifactError where a file is missing, cut off, altered, or of another format version.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    device = torch.device(device)
    try:
        check_files(folder, manifest)
        plan = plan_from_json(manifest["plan"])
        packed = Packed.load(folder / TABLES, [field.name for field in plan.fields])
        if packed.plan != plan:
            raise ArtifactError(f"{folder / TABLES}: its plan is not the one of {MANIFEST}; export it again")
        data = manifest["data"]
        hashed = [
            HashedIds(entry["kind"], entry["hash_rows"]) if "hash_rows" in entry else None
            for entry in data["fields"]
        ]
        vocabularies = read_vocabularies(folder / VOCABULARY, hashed)
        fields = tuple(
            RawField(
                *(entry["name"], vocabulary, entry["bag"], entry["pooling"], entry["separator"]),
                entry.get("weights"),
            )
            for entry, vocabulary in zip(data["fields"], vocabularies, strict=True)
        )
        dense = tuple(RawDense(d["name"], d["kind"], d["mean"], d["std"]) for d in data["dense"])
        model = parse(ModelConfig, manifest["model"], str(folder / MANIFEST))
        network = read_network(folder / NETWORK, model, len(fields), len(dense))
        for field, kept_rows in zip(fields, plan.kept_rows, strict=True):
            if field.vocabulary.rows != kept_rows:
                raise ArtifactError(
                    f"{folder / VOCABULARY}: field {field.name!r} has {field.vocabulary.rows} rows, "
                    f"its plan keeps {kept_rows}; export it again"
                )
        table, label = PackedTable(packed), data["label"]
    except ArtifactError:
        raise
    except KeyError as error:
        raise ArtifactError(f"{folder}: inconsistent, export the model again: no {error}") from None
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{folder}: inconsistent, export the model again: {error}") from None
    return Artifact(manifest, table.to(device).eval(), network.to(device), fields, dense, label, device)
