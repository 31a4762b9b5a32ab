"""Where a walk stands after a point, on disk: safetensors and JSON, from which it goes on exactly."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from autoembed.damage import check_checksums, checksums_of, read_json, readable
from autoembed.files import write_file
from autoembed.joint.config import UNWRITTEN, JointConfig
from autoembed.joint.point import Point, read_point, write_point
from autoembed.joint.settle import Settings, usual
from autoembed.joint.table import Weights
from autoembed.models import ModelConfig


class CheckpointError(ValueError):
    """The folder holds another walk; the message says what differs."""


@dataclass(frozen=True)
class Standing:
    """After some points: the rows and learned steps carried on, the network's state, how to fine-tune."""

    weights: Weights
    network: dict[str, torch.Tensor]
    settings: Settings


def save_standing(folder: Path, standing: Standing, points: list[Point], about: dict[str, Any]) -> None:
    """Write the newest point and the standing after it; `about` says which walk this is.

    walk.json comes last and names the files that it needs, so that a cut anywhere leaves the walk as it was
    before this point.
    """
    count = len(points)
    write_point(folder / f"point_{count - 1:03d}", points[-1])
    tensors = {f"network.{name}": tensor for name, tensor in standing.network.items()}
    tensors["rows"] = standing.weights.rows
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    name = f"standing_{count:03d}.safetensors"
    write_file(folder / name, [save(state)])
    facts = {
        "about": about,
        "points": count,
        "checksums": checksums_of(folder, [name]),
        "settings": asdict(standing.settings),
        "learned_steps": [[list(key), step] for key, step in sorted(standing.weights.steps.items())],
    }
    write_file(folder / "walk.json", [json.dumps(facts, indent=1).encode()])
    (folder / f"standing_{count - 1:03d}.safetensors").unlink(missing_ok=True)


def settled(folder: Path, config: JointConfig) -> Settings:
    """With which settings the walk in the folder fine-tunes; the usual ones where nothing was saved."""
    path = folder / "walk.json"
    if not path.is_file():
        return usual(config)
    facts = read_json(path, ("about", "points"), _remedy(path))
    with readable(path, _remedy(path)):
        return Settings(**facts["settings"]) if "settings" in facts else usual(config)


def load_standing(
    folder: Path,
    about: dict[str, Any],
    model: ModelConfig,
    names: tuple[str, ...],
    dense: int,
    earlier: Settings,
) -> tuple[Standing, list[Point]] | None:
    """What was saved last; None where nothing was. `earlier` are the settings where no version wrote them.

    Raises CheckpointError where it was another walk, DamagedError naming the file and what to do where one
    is missing or altered.
    """
    path = folder / "walk.json"
    if not path.is_file():
        return None
    remedy = _remedy(path)
    facts = read_json(path, ("about", "points"), remedy)
    wanted = json.loads(json.dumps(about))
    with readable(path, remedy):  # earlier versions wrote neither the order nor what the rows were
        known = {"rows": wanted.get("rows")} | facts["about"]
        known["joint"] = UNWRITTEN | known.get("joint", {})
    different = sorted(key for key in wanted.keys() | known if wanted.get(key) != known.get(key))
    if different and set(different) <= {"rows", "trunk_valid"}:
        raise CheckpointError(
            f"{path}: the walk there began at another trunk; copy that back, or remove {folder} and the "
            "records of its points to walk again"
        )
    if different:
        raise CheckpointError(
            f"{path}: the walk there has another {', '.join(different)}; "
            "give the same settings, or another folder"
        )
    count = facts["points"]
    file = folder / f"standing_{count:03d}.safetensors"
    check_checksums(folder, facts.get("checksums", {}), remedy)  # earlier versions wrote none
    with readable(file, remedy):
        tensors = load_file(file)
    with readable(path, remedy):
        steps = {tuple(key): step for key, step in facts["learned_steps"]}
        settings = Settings(**facts["settings"]) if "settings" in facts else earlier
    network = {name[len("network.") :]: t for name, t in tensors.items() if name.startswith("network.")}
    standing = Standing(Weights(tensors["rows"], steps), network, settings)
    points = [read_point(folder / f"point_{i:03d}", model, names, dense, remedy) for i in range(count)]
    return standing, points


def _remedy(path: Path) -> str:
    return f"copy it back, or remove {path} and start again: this walk then goes from its first point"
