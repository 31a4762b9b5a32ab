"""What the trials of a study read: prepared data, its statistics, and what tables are built for."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData, open_prepared
from autoembed.files import writing
from autoembed.methods.base import TableSpec
from autoembed.plan import PROFILES
from autoembed.search.events import DataProgress, Listener
from autoembed.search.study import StudyConfig
from autoembed.stats import Stats, stats_of


@dataclass(frozen=True)
class Inputs:
    data: PreparedData
    stats: Stats
    spec: TableSpec


def open_inputs(config: StudyConfig, run: Path) -> Inputs:
    """Open the data of a study, prepared before."""
    data = open_prepared(data_folder(config, run))
    stats = stats_of(data)
    return Inputs(
        data, stats, TableSpec(stats, config.model.dim, PROFILES[config.profile], config.training.initial_std)
    )


def prepare_inputs(config: StudyConfig, run: Path, tell: Listener | None = None) -> Inputs:
    """As `open_inputs`, but data that a YAML describes is prepared first, once for all runs beside `run`."""
    if not Path(config.data).is_dir():
        folder = data_folder(config, run)
        with writing(folder, reads_too=True):
            folder.parent.mkdir(parents=True, exist_ok=True)
            prepare(
                load_data_config(Path(config.data)),
                folder,
                progress=tell and (lambda at: tell(DataProgress(at.stage, at.done, at.rows))),
            )
    return open_inputs(config, run)


def data_folder(config: StudyConfig, run: Path) -> Path:
    """The prepared folder of a study: as given, or RUN/../prepared/NAME-HASH for a data YAML."""
    path = Path(config.data)
    if path.is_dir():
        return path
    content: dict[str, Any] = load_data_config(path).model_dump(mode="json")
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return run.resolve().parent / "prepared" / f"{path.stem}-{digest[:8]}"
