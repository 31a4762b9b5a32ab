"""YAML files <-> frozen, checked values. An error names the file, the key and the valid choices."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """What a person wrote cannot be used; the message says where and what to write instead."""


class Section(BaseModel):
    """A mapping in a YAML file: unknown keys are errors, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping. Raises ConfigError naming the file and the line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def parse(section: type[SectionType], content: Mapping[str, Any], source: str) -> SectionType:
    """Check `content` against `section`. Raises ConfigError; `source` names the file in it."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        lines = [f"{source}: {_explain(section, problem)}" for problem in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def load(section: type[SectionType], path: Path) -> SectionType:
    """Read and check a YAML file. Raises ConfigError."""
    return parse(section, read_yaml(path), str(path))


def _explain(section: type[Section], problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "(top)"
    if problem["type"] == "extra_forbidden":
        valid = sorted(_keys_at(section, problem["loc"][:-1]))
        near = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown key {where!r}; {hint}valid keys: {', '.join(valid)}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    return f"key {where!r}: {problem['msg']}, found {problem['input']!r}"


def _keys_at(section: type[Section], path: tuple[Any, ...]) -> list[str]:
    """The keys that are valid at a place in the file, following nested sections by annotation."""
    current: Any = section
    for part in path:
        fields = getattr(current, "model_fields", {})
        if part in fields:
            current = _section_of(fields[part].annotation)
    return list(getattr(current, "model_fields", {}))


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_of(inner)
        if found is not None:
            return found
    return None
