"""A study over a few hundred generated clicks, for tests of the search."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from autoembed.search.study import StudyConfig, load_study

SPACE = {
    "methods": [
        {"method": "fp16"},
        {"method": "uniform", "knobs": {"bits": [1, 2, 3, 4, 8]}, "baselines": [{"bits": 8}]},
        {"method": "frequency_cut", "knobs": {"keep": {"low": 0.1, "high": 0.9}, "bits": [2, 4, 8]}},
    ]
}


def write_clicks(folder: Path, rows: int = 900) -> Path:
    """A click log of three columns with a planted signal, and the data YAML that reads it."""
    random = np.random.default_rng(7)
    sizes = {"user": 60, "item": 40, "hour": 12}
    ids = {
        name: np.minimum(size ** random.random(rows), size - 1).astype(int) for name, size in sizes.items()
    }
    weights = {name: random.normal(0, 1.5, size) for name, size in sizes.items()}
    logits = sum(weights[name][values] for name, values in ids.items())
    clicks = (random.random(rows) < 1 / (1 + np.exp(-logits))).astype(int)
    with (folder / "clicks.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["click", *sizes])
        writer.writerows(zip(clicks, *ids.values(), strict=True))
    path = folder / "clicks.yaml"
    split = {"random": {"valid": 0.2, "test": 0.2, "seed": 1}}
    data = {"path": "clicks.csv", "label": "click", "categorical": [*sizes], "split": split}
    path.write_text(yaml.safe_dump(data))
    return path


def make_study(folder: Path, **keys: Any) -> StudyConfig:
    """Write a study file into `folder`, where `write_clicks` wrote the data, and load it."""
    content = {
        "data": "clicks.yaml",
        "search_space": SPACE,
        "budgets": ["1/2", "1/8"],
        "model": {"name": "dnn", "dim": 16, "hidden": [8]},
        "training": {"epochs": 2, "batch_size": 128, "learning_rate": 0.01},
        "trials": 6,
        "seeds": 2,
        **keys,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return load_study(path)
