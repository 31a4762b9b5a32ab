"""A point of the walked front, and the folder that keeps it."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import nn

from autoembed.damage import check_checksums, checksums_of, read_json, readable
from autoembed.files import write_file
from autoembed.joint.settle import Trial
from autoembed.metrics import Metrics
from autoembed.models import ModelConfig
from autoembed.network_file import read_network, write_network
from autoembed.packed import Packed

TABLES, NETWORK = "tables.safetensors", "network.safetensors"


@dataclass(frozen=True)
class Point:
    """One budget's model. Metrics are those of the packed tables under this point's own network.

    `steps` and the seconds are what this point took until it was validated; `fine_tuned` says whether
    the fine-tuned weights were kept, `untuned` is the validation before any step. `table_bytes` is the most
    that was held of tables at a time: the trunk's rows, those carried on, and the larger of: a table with
    its optimizer's state, what pricing needs. `explained`: why the plan is what it is, as JSON (explain.py).
    `teacher` and `rate`: the settings of its steps (settle.py), None where none were kept.
    `tried`: the trials of settings that were made here. `afresh`: it was planned from the trunk's rows.
    """

    budget_bytes: int
    bytes: int
    packed: Packed
    network: nn.Module
    valid: Metrics
    test: Metrics
    untuned: Metrics
    fine_tuned: bool
    steps: int
    seconds: float
    cpu_seconds: float
    table_bytes: int
    explained: dict[str, Any] | None = None
    teacher: float | None = None
    rate: float | None = None
    tried: tuple[Trial, ...] = ()
    afresh: bool = False


def write_point(folder: Path, point: Point) -> None:
    """tables.safetensors, network.safetensors and, last, point.json with the checksums of the two."""
    folder.mkdir(parents=True, exist_ok=True)
    point.packed.save(folder / TABLES)
    write_network(folder / NETWORK, point.network)
    facts = {
        name: asdict(value) if isinstance(value, Metrics) else value
        for name, value in vars(point).items()
        if name not in ("packed", "network")
    }
    facts["tried"] = [asdict(trial) for trial in point.tried]
    facts["checksums"] = checksums_of(folder, (TABLES, NETWORK))
    write_file(folder / "point.json", [json.dumps(facts, indent=1).encode()])


def read_point(folder: Path, model: ModelConfig, names: tuple[str, ...], dense: int, remedy: str) -> Point:
    """What `write_point` wrote; `names` are the data's fields.

    Raises DamagedError naming the file, which ends with `remedy`, where one is missing or altered.
    """
    file = folder / "point.json"
    wanted = {field.name for field in fields(Point) if field.default is MISSING} - {"packed", "network"}
    facts = read_json(file, sorted(wanted), remedy)
    check_checksums(folder, facts.pop("checksums", {}), remedy)  # earlier versions wrote none
    with readable(folder / TABLES, remedy):
        packed = Packed.load(folder / TABLES, names)
    with readable(folder / NETWORK, remedy):
        network = read_network(folder / NETWORK, model, len(names), dense)
    with readable(file, remedy):
        for name in ("valid", "test", "untuned"):
            facts[name] = Metrics(**facts[name])
        facts["tried"] = tuple(
            Trial(**trial | {"valid": trial["valid"] and Metrics(**trial["valid"])})
            for trial in facts.get("tried", ())  # earlier versions wrote none
        )
        return Point(packed=packed, network=network, **facts)
