"""What the trials of a study read: prepared data, its statistics, and what tables are built for."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoembed.config import ConfigError, read_yaml
from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData, open_prepared
from autoembed.data.row_order import RowOrder
from autoembed.data.sources import describe, find_files
from autoembed.files import writing
from autoembed.methods.base import TableSpec
from autoembed.plan import PROFILES
from autoembed.search.events import DataProgress, Listener
from autoembed.search.folder import RunFolder
from autoembed.search.study import StudyConfig
from autoembed.stats import Stats, stats_of


@dataclass(frozen=True)
class Inputs:
    data: PreparedData
    stats: Stats
    spec: TableSpec

    def reordered(self, order: RowOrder) -> "Inputs":
        """The same with rows in another order."""
        stats = self.stats.reordered(order)
        return Inputs(self.data.reordered(order), stats, replace(self.spec, stats=stats))


def open_inputs(config: StudyConfig, run: Path) -> Inputs:
    """Open the data of a study, prepared before. Raises ConfigError where it is gone."""
    if not Path(config.data).exists():
        raise ConfigError(
            f"{RunFolder(run).config}: key 'data': there is no prepared data at {config.data}; put it back, "
            f"or search again from where it is (autoembed search STUDY --run {run}), which keeps the trials"
        )
    data = open_prepared(data_folder(config, run))
    stats = stats_of(data)
    return Inputs(
        data, stats, TableSpec(stats, config.model.dim, PROFILES[config.profile], config.training.initial_std)
    )


def prepare_inputs(config: StudyConfig, run: Path, tell: Listener | None = None) -> Inputs:
    """As `open_inputs`, but data that a YAML describes is prepared first, once for all runs beside `run`.

    A run that was begun goes on with the data that it has, whatever became of the logs since.
    """
    if Path(config.data).is_dir():
        return open_inputs(config, run)
    folder = _data_of(run, _name(config))
    if folder is None:
        folder = data_folder(config, run)
        with writing(folder, reads_too=True):
            folder.parent.mkdir(parents=True, exist_ok=True)
            prepare(
                load_data_config(Path(config.data)),
                folder,
                progress=tell and (lambda at: tell(DataProgress(at.stage, at.done, at.rows))),
            )
    return open_inputs(config.model_copy(update={"data": str(folder)}), run)


def data_folder(config: StudyConfig, run: Path) -> Path:
    """The prepared folder of a study: as given, or RUN/../prepared/NAME-HASH-HASH for a data YAML.

    The hashes are of what the YAML says and of the files that it names: logs that grow or change are prepared
    beside what earlier runs use. Raises ConfigError where the logs are not there.
    """
    path = Path(config.data)
    if path.is_dir():
        return path
    files, _ = find_files(load_data_config(path))
    return run.resolve().parent / "prepared" / f"{_name(config)}-{_hash(describe(files))}"


def _name(config: StudyConfig) -> str:
    path = Path(config.data)
    return f"{path.stem}-{_hash(load_data_config(path).model_dump(mode='json'))}"


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def _data_of(run: Path, name: str) -> Path | None:
    """The prepared folder of a run that was begun with the data of this name."""
    config = RunFolder(run).config
    if not config.is_file():
        return None
    data = (run / str(read_yaml(config).get("data", ""))).resolve()  # as the run folder keeps it
    return data if data.name.startswith(f"{name}-") and data.is_dir() else None
