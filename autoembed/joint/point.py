"""A point of the walked front, and the folder that keeps it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoembed.files import write_file
from autoembed.metrics import Metrics
from autoembed.models import ModelConfig
from autoembed.network_file import read_network, write_network
from autoembed.packed import Packed


@dataclass(frozen=True)
class Point:
    """One budget's model. Metrics are those of the packed tables under this point's own network.

    `steps` and the seconds are what this point took until it was validated; `fine_tuned` says whether
    the fine-tuned weights were kept, `untuned` is the validation before any step. `table_bytes` is the most
    that was held of tables at a time: the trunk's rows, those carried on, and the larger of: a table with
    its optimizer's state, what pricing needs. `explained`: why the plan is what it is, as JSON (explain.py).
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


def write_point(folder: Path, point: Point) -> None:
    """tables.safetensors, network.safetensors and, last, point.json."""
    folder.mkdir(parents=True, exist_ok=True)
    point.packed.save(folder / "tables.safetensors")
    write_network(folder / "network.safetensors", point.network)
    facts = {
        name: asdict(value) if isinstance(value, Metrics) else value
        for name, value in vars(point).items()
        if name not in ("packed", "network")
    }
    write_file(folder / "point.json", [json.dumps(facts, indent=1).encode()])


def read_point(folder: Path, model: ModelConfig, names: tuple[str, ...], dense: int) -> Point:
    """What `write_point` wrote; `names` are the data's fields."""
    facts: dict[str, Any] = json.loads((folder / "point.json").read_text(encoding="utf-8"))
    for name in ("valid", "test", "untuned"):
        facts[name] = Metrics(**facts[name])
    packed = Packed.load(folder / "tables.safetensors", names)
    network = read_network(folder / "network.safetensors", model, len(names), dense)
    return Point(packed=packed, network=network, **facts)
