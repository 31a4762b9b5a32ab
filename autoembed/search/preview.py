"""A search before any training: what every entry of the space can cost in bytes, against the budgets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from autoembed.budget import format_bytes
from autoembed.fitting import FIT
from autoembed.joint.planner import smallest_bytes
from autoembed.methods import make_method, method_parameters
from autoembed.methods.base import Choice, Domain, Method, TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.search.inputs import prepare_inputs
from autoembed.search.limits import unmet_budgets
from autoembed.search.study import JOINT, StudyConfig
from autoembed.space import Searched, Space, load_spaces


@dataclass(frozen=True)
class Extent:
    """The least and the most bytes of one entry of a space. `problem`: no setting of it can be stored."""

    method: str
    settings: str
    low_bytes: int
    high_bytes: int
    problem: str = ""


def extents(space: Space, spec: TableSpec, baselines: Sequence[Method]) -> list[Extent]:
    """One for each of the space's baselines, then one for each method that is searched.

    A setting that should have been fitted and is not among the baselines has one with a problem.
    """
    rows = [_extent(method.name, describe(method_parameters(method)), [method], spec) for method in baselines]
    for fitted in space.fitted:
        if not any(fitted.gave(method) for method in baselines):
            settings = describe({**dict(fitted.parameters), fitted.knob: FIT})
            rows.append(Extent(fitted.method, settings, 0, 0, fitted.problem(spec)))
    for entry in space.searched:
        text = ", ".join([*(f"{k} {d}" for k, d in entry.knobs), *(f"{k}={v}" for k, v in entry.fixed)])
        rows.append(_extent(entry.method, text, list(_corners(entry)), spec))
    return rows


def preview(config: StudyConfig, run: Path) -> list[tuple[str, str, str, str, str]]:
    """Rows for `autoembed plan`: method, settings, smallest, largest, the least budget that it can meet."""
    spec = prepare_inputs(config, run).spec
    full_bytes = FullPrecision().footprint(spec).high_bytes
    budgets = config.budgets_bytes(full_bytes)
    rows = [
        ("full_precision", "", format_bytes(full_bytes), format_bytes(full_bytes), _met(full_bytes, budgets))
    ]
    if config.is_joint:
        low = smallest_bytes(spec)
        ends = format_bytes(low), format_bytes(full_bytes)
        rows.append((JOINT, unmet_budgets(budgets, low), *ends, _met(low, budgets)))
    space = load_spaces(config.single_spaces)
    for extent in extents(space, spec, space.baselines(spec, budgets)):
        if extent.problem:
            rows.append((extent.method, extent.settings, "-", "-", extent.problem))
        else:
            ends = format_bytes(extent.low_bytes), format_bytes(extent.high_bytes)
            rows.append((extent.method, extent.settings, *ends, _met(extent.low_bytes, budgets)))
    return rows


def describe(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items())


def _extent(method: str, settings: str, candidates: list[Method], spec: TableSpec) -> Extent:
    sizes, problem = [], ""
    for candidate in candidates:
        try:
            footprint = candidate.footprint(spec)
        except ValueError as error:
            problem = str(error)
        else:
            sizes += [footprint.low_bytes, footprint.high_bytes]
    if not sizes:
        return Extent(method, settings, 0, 0, problem)
    return Extent(method, settings, min(sizes), max(sizes))


def _corners(entry: Searched) -> Iterator[Method]:
    """Settings that hold the extremes: bytes never fall where a knob asks for more of something."""
    names = [name for name, _ in entry.knobs]
    for values in product(*(_ends(domain) for _, domain in entry.knobs)):
        yield make_method(entry.method, {**dict(entry.fixed), **dict(zip(names, values, strict=True))})


def _ends(domain: Domain) -> tuple[Any, ...]:
    return domain.values if isinstance(domain, Choice) else (domain.low, domain.high)


def _met(low_bytes: int, budgets: tuple[int, ...]) -> str:
    met = [budget for budget in budgets if low_bytes <= budget]
    return format_bytes(min(met)) if met else "none"
