"""YAML files <-> frozen, checked values. An error names the file, the key and the valid choices."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """What a person wrote cannot be used; the message says where and what to write instead."""


class Section(BaseModel):
    """A mapping in a YAML file: unknown keys are errors, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


SectionType = TypeVar("SectionType", bound=Section)
Keys = tuple[Any, ...]

_EXPECTED = {  # what pydantic's complaints mean in a YAML file
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file whose top is a mapping. Raises ConfigError naming the file and the line."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except _RepeatedKey as error:
        raise ConfigError(f"{path}:{error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def read_value(text: str) -> Any:
    """One value as a file would hold it. Raises yaml.YAMLError, also where a key stands twice."""
    try:
        return yaml.load(text, _Loader)
    except _RepeatedKey as error:
        raise yaml.YAMLError(f"line {error}") from None


class _RepeatedKey(Exception):
    """Says the line and the key."""


class _Loader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys; this refuses them.

    Numbers in base 60 stay text: YAML 1.1 reads 12:30 as 750, where a duration or a ratio was meant.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            line = key.start_mark.line + 1
            first = lines.get((key.tag, key.value))
            if first is not None:
                raise _RepeatedKey(f"{line}: key {key.value!r} stands in line {first} already; keep one")
            lines[key.tag, key.value] = line
        return node


def _number(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if ":" in node.value:
        return node.value
    is_int = node.tag == "tag:yaml.org,2002:int"
    return loader.construct_yaml_int(node) if is_int else loader.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def parse(section: type[SectionType], content: Mapping[str, Any], source: str) -> SectionType:
    """Check `content` against `section`. Raises ConfigError; `source` names the file in it."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        lines = [f"{source}: {line}" for line in _explain(section, error.errors())]
        raise ConfigError("\n".join(lines)) from None


def load(section: type[SectionType], path: Path) -> SectionType:
    """Read and check a YAML file. Raises ConfigError."""
    return parse(section, read_yaml(path), str(path))


def _explain(section: type[Section], problems: Sequence[Any]) -> list[str]:
    """One line per mistake. Where a key takes several types pydantic complains once per type: what it says
    of the type that the value has is kept, else the types are put together."""
    places = [_place(section, problem["loc"]) for problem in problems]
    expected: dict[Keys, list[str]] = {}
    lines: dict[Keys, str] = {}
    for (keys, valid, of_a_type), problem in zip(places, problems, strict=True):
        if of_a_type and any(other[: len(keys)] == keys for other, _, whole in places if not whole):
            continue  # the value has another type, and a mistake inside
        where = ".".join(str(key) for key in keys) or "(top)"
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(keys[-1]), valid, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            lines[keys] = f"unknown key {where!r}; {hint}valid keys: {', '.join(valid)}"
        elif problem["type"] == "missing":
            lines[keys] = f"key {where!r} is missing"
        elif problem["type"] in _EXPECTED:
            names = expected.setdefault(keys, [])
            names += [name for name in (_EXPECTED[problem["type"]],) if name not in names]
            lines[keys] = f"key {where!r}: expected {' or '.join(names)}, found {problem['input']!r}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            lines[keys] = f"key {where!r}: {message}, found {problem['input']!r}"
    return list(lines.values())


def _place(section: type[Section], location: Keys) -> tuple[Keys, list[str], bool]:
    """Where a mistake is: its keys, the keys that are valid there, and whether the place ends with the name
    of one of several types: pydantic writes these between the keys."""
    current: Any = section
    keys: list[Any] = []
    valid: list[str] = []
    of_a_type = False
    for part in location:
        members = _members(current)
        of_a_type = len(members) > 1
        if of_a_type:
            current = next((m for m in members if str(part).startswith(_type_name(m))), None)
            continue
        keys.append(part)
        fields = getattr(members[0], "model_fields", {})
        valid = sorted(fields)
        arguments = get_args(members[0])
        if part in fields:
            current = fields[part].annotation
        else:  # a mapping's values, or a list's items
            current = arguments[1 if get_origin(members[0]) is dict else 0] if arguments else None
    return tuple(keys), valid, of_a_type


def _members(annotation: Any) -> list[Any]:
    """The types of which a value may be one, None left out."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [m for inner in get_args(annotation) if inner is not NoneType for m in _members(inner)]
    return [annotation]


def _type_name(annotation: Any) -> str:
    return str(getattr(get_origin(annotation) or annotation, "__name__", annotation))
