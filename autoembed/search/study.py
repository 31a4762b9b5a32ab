"""The study file: one YAML that says what to search, over which data, under which budgets.

docs/study.md explains every key. Relative paths start at the folder of the file.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from autoembed.budget import parse_budget
from autoembed.config import ConfigError, Section, parse, read_value, read_yaml
from autoembed.files import write_file
from autoembed.joint.config import JointConfig
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.training import TrainingConfig

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)\s*d)?\s*(?:(\d+(?:\.\d+)?)\s*h)?\s*(?:(\d+(?:\.\d+)?)\s*m)?"
                       r"\s*(?:(\d+(?:\.\d+)?)\s*s)?")  # fmt: skip

Size = int | str
JOINT = "joint"  # the search space that is no list of methods


class StudyError(RuntimeError):
    """The study cannot go on; the message says why and what to change."""


def _bytes_of(key: str, budget: Size, full_bytes: int) -> int:
    """`parse_budget`, whose error names the key."""
    try:
        return parse_budget(budget, full_bytes)
    except ValueError as error:
        raise ConfigError(f"key {key!r}: {error}") from None


class ByteRange(Section):
    """Candidates from `low` to `high`, sizes or ratios; answers are given at high, high / 2, ... low."""

    low: Size
    high: Size

    @field_validator("low", "high", mode="before")
    @classmethod
    def _readable(cls, value: Any) -> Any:
        parse_budget(value, 2**62)
        return value


class Promotion(Section):
    """Candidates train for `share` of the reference's epochs; of every `of` the best `keep` train in full."""

    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.34
    of: Annotated[int, Field(ge=2, le=1000)] = 6
    keep: Annotated[int, Field(ge=1, le=1000)] = 2

    @model_validator(mode="after")
    def _keeps_some(self) -> "Promotion":
        if self.keep >= self.of:
            raise ValueError(f"keep is {self.keep} of {self.of}, which promotes all; make keep smaller")
        return self


class StudyConfig(Section):
    """A study. `data`, files of `search_space` and `warm_start` are absolute paths after loading."""

    data: str
    search_space: str | dict[str, Any] | tuple[str, ...]
    budgets: tuple[Size, ...] = ()
    byte_range: ByteRange | None = None
    profile: str = "packed"
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    joint: JointConfig = JointConfig()
    promotion: Promotion | None = None
    warm_start: tuple[str, ...] = ()
    objective: Literal["auc", "logloss"] = "auc"
    trials: Annotated[int, Field(ge=0)] = 30
    time_limit: str | None = None
    patience_trials: Annotated[int | None, Field(ge=1)] = None
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    sampler: Literal["tpe", "random", "nsga2"] = "tpe"

    @field_validator("search_space")
    @classmethod
    def _names_a_space(cls, value: object) -> object:
        if value == ():
            raise ValueError("the list is empty; name at least one search space")
        return value

    @field_validator("profile")
    @classmethod
    def _known_profile(cls, value: str) -> str:
        if value not in PROFILES:
            raise ValueError(f"there is no such profile; profiles: {', '.join(PROFILES)}")
        return value

    @field_validator("time_limit", mode="before")
    @classmethod
    def _readable_duration(cls, value: object) -> object:
        if value is not None:
            parse_duration(value)
        return None if value is None else str(value)

    @field_validator("budgets", mode="before")
    @classmethod
    def _readable_budgets(cls, value: Any) -> Any:
        # before truth values become numbers
        for budget in value if isinstance(value, list | tuple) else ():
            parse_budget(budget, 2**62)
        return value

    @property
    def is_joint(self) -> bool:
        """Whether the joint search runs, alone or before single methods."""
        spaces = self.search_space if isinstance(self.search_space, tuple) else (self.search_space,)
        return JOINT in spaces

    @property
    def single_spaces(self) -> tuple[str | dict[str, Any], ...]:
        """The search spaces of single methods: all but the joint one."""
        spaces = self.search_space if isinstance(self.search_space, tuple) else (self.search_space,)
        return tuple(space for space in spaces if space != JOINT)

    @property
    def time_limit_seconds(self) -> float | None:
        return None if self.time_limit is None else parse_duration(self.time_limit)

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of the error bars; the first one is the seed of every search trial."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def budgets_bytes(self, full_bytes: int) -> tuple[int, ...]:
        """The budgets in bytes, largest first, given the exported size of full precision.

        A byte range becomes the ladder high, high / 2, high / 4, ... above low, which hardly a file meets.
        """
        if self.byte_range is None:
            return tuple(sorted({_bytes_of("budgets", b, full_bytes) for b in self.budgets}, reverse=True))
        low, high = self.range_bytes(full_bytes)
        ladder = [high]
        while ladder[-1] // 2 > low:
            ladder.append(ladder[-1] // 2)
        return tuple(ladder)

    def range_bytes(self, full_bytes: int) -> tuple[int, int]:
        """The least and the most bytes that a candidate may have. Raises ConfigError if reversed."""
        if self.byte_range is None:
            return 0, self.budgets_bytes(full_bytes)[0]
        low = _bytes_of("byte_range.low", self.byte_range.low, full_bytes)
        high = _bytes_of("byte_range.high", self.byte_range.high, full_bytes)
        if low > high:
            raise ConfigError(f"key 'byte_range': low is {low} bytes, above high, {high} bytes; swap them")
        return low, high


def load_study(path: Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study file; an override such as "training.epochs=3" replaces one key.

    Raises ConfigError naming the file, the key and what to write instead.
    """
    config = _read_study(path, overrides)
    if not Path(config.data).exists():
        raise ConfigError(
            f"{path}: key 'data': there is nothing at {config.data}; "
            "name a prepared folder or a data YAML, relative to the study file"
        )
    for run in config.warm_start:
        if not (Path(run) / "trials").is_dir():
            raise ConfigError(
                f"{path}: key 'warm_start': {run} is not the folder of a search; name run folders, "
                "relative to the study file"
            )
    return config


def _read_study(path: Path, overrides: Sequence[str]) -> StudyConfig:
    """A study with absolute paths, whatever is there."""
    content = read_yaml(path)
    for override in overrides:
        _override(content, override, str(path))
    source = str(path)
    if overrides:
        source += f" with {' '.join(f'--set {override}' for override in overrides)}"
    config = parse(StudyConfig, content, source)
    if bool(config.budgets) == (config.byte_range is not None):
        raise ConfigError(
            f"{path}: write exactly one of the keys 'budgets', a list of sizes or ratios such as "
            "[1/4, 1/16, 64KiB], and 'byte_range', with low and high"
        )
    if config.model.batch_norm and config.training.batch_size == 1:
        raise ConfigError(
            f"{path}: a batch of one row has no batch_norm; raise batch_size, or set it to false"
        )
    metric = config.training.metric if "metric" in config.training.model_fields_set else config.objective
    if config.is_joint and config.joint.max_drop is not None and metric != config.objective:
        raise ConfigError(
            f"{path}: joint.max_drop is of the objective, {config.objective}, and models are chosen by "
            f"{metric}; give training.metric and objective the same"
        )
    changes: dict[str, Any] = {"data": _absolute(path, config.data)}
    changes["search_space"] = _spaces(config, lambda space: _absolute(path, space))
    changes["warm_start"] = tuple(_absolute(path, run) for run in config.warm_start)
    # epochs are chosen by what the study is about, unless the file says otherwise
    changes["training"] = config.training.model_copy(update={"metric": metric})
    return config.model_copy(update=changes)


def read_config(run: Path) -> StudyConfig:
    """The study that a run folder holds; its data, and runs it started from, may be gone.

    Raises ConfigError where it is not a run folder.
    """
    if not (run / "config.yaml").exists():
        raise ConfigError(
            f"{run} is not the folder of a search: it has no config.yaml; see `autoembed search`"
        )
    return _read_study(run / "config.yaml", ())


def write_config(config: StudyConfig, path: Path) -> None:
    """Write a study so that `load_study` reads an equal one from there; paths become relative to it."""
    content = config.model_dump(mode="json", exclude_none=True)
    folder = path.resolve().parent
    content["data"] = os.path.relpath(config.data, folder)
    spaces = _spaces(config, lambda space: os.path.relpath(space, folder))
    content["search_space"] = list(spaces) if isinstance(spaces, tuple) else spaces
    content["warm_start"] = [os.path.relpath(run, folder) for run in config.warm_start]
    if config.byte_range is not None:
        del content["budgets"]
    write_file(path, [yaml.safe_dump(content, sort_keys=False).encode()])


def parse_duration(text: object) -> float:
    """`"2h"`, `"1h30m"`, `"45s"`, or a number of seconds -> seconds. Raises ValueError."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        seconds = float(text)
    else:
        match = _DURATION.fullmatch(str(text).strip().lower())
        parts = match.groups(default="0") if match and any(match.groups()) else None
        if parts is None:
            try:
                seconds = float(str(text))
            except ValueError:
                raise ValueError(
                    f"cannot read {text!r} as a duration; write such as 2h, 1h30m, 45s"
                ) from None
        else:
            seconds = sum(float(p) * unit for p, unit in zip(parts, (86400, 3600, 60, 1), strict=True))
    if not 0 < seconds < float("inf"):
        raise ValueError(f"a duration must be positive, got {text!r}")
    return seconds


def is_path(search_space: str) -> bool:
    """Whether a search space is named by its file rather than as a preset."""
    return search_space.endswith((".yaml", ".yml")) or "/" in search_space or os.sep in search_space


def _spaces(config: StudyConfig, change: Callable[[str], str]) -> str | dict[str, Any] | tuple[str, ...]:
    """`search_space` with `change` made to those that are files."""
    space = config.search_space
    if isinstance(space, tuple):
        return tuple(change(name) if is_path(name) else name for name in space)
    return change(space) if isinstance(space, str) and is_path(space) else space


def _absolute(study: Path, entry: str) -> str:
    return os.path.normpath(study.resolve().parent / Path(entry).expanduser())


def _override(content: dict[str, Any], override: str, source: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"cannot read the override {override!r}; write KEY=VALUE, such as training.epochs=3"
        )
    try:
        value = read_value(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: the value is not YAML") from None
    place = content
    *path, last = key.strip().split(".")
    for part in path:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigError(f"override {override!r}: {part!r} in {source} is a value, not a section")
    place[last] = value
