"""Search spaces: YAML narrows the knobs that the methods declare, and names settings to run first.

    methods:
      - method: uniform
        knobs: {bits: [2, 4, 8]}                                   # a list of values
        baselines: [{bits: 8}]                                     # run before the search
      - method: hashing
        knobs: {ratio: all}
        baselines: [{ratio: fit, bits: 8}]                         # one for each budget, as large as it lets
      - method: mpe
        knobs: {penalty: {low: 1.0e-6, high: 1.0e-3, log: true}, tau: 0.003}
      - method: fp16                                               # no knobs: a baseline by itself

A knob that is not named keeps its default; `all` gives it its whole domain; one value fixes it. Lists are
searched in the order written: numbers in their order, so that a sampler sees that 4 lies between 2 and 8.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from autoembed.config import ConfigError, Section, parse, read_yaml
from autoembed.fitting import FIT, Fitted
from autoembed.methods import make_method, method_named, method_parameters, nearest
from autoembed.methods.base import Choice, Domain, Float, Int, Method, TableSpec

_HERE = Path(__file__).parent
# the presets lie inside the package when installed, beside it in a checkout
PRESETS = next(d for d in (_HERE / "search_spaces", _HERE.parent / "search_spaces") if d.is_dir())


class Trial(Protocol):
    """What a space asks of a trial; optuna's trials answer it."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_categorical(self, name: str, choices: tuple[str, ...]) -> Any: ...


@dataclass(frozen=True)
class Searched:
    """A method that the search may choose: the values of its knobs that are fixed, and those to try."""

    method: str
    fixed: tuple[tuple[str, Any], ...]
    knobs: tuple[tuple[str, Domain], ...]


@dataclass(frozen=True)
class Space:
    """What a search tries. `source` is the preset or file it came from, for messages."""

    source: str
    searched: tuple[Searched, ...]
    fixed_settings: tuple[Method, ...]
    fitted: tuple[Fitted, ...] = ()

    def suggest(self, trial: Trial) -> Method:
        """A setting sampled by `trial`: its parameters are `method` and `METHOD.KNOB`.

        A choice of values is suggested as its place in the list. Raises ConfigError where the space
        holds baselines alone.
        """
        if not self.searched:
            raise ConfigError(
                f"search space {self.source}: no method has knobs to search; add some, or run 0 trials"
            )
        entry = self.searched[0]
        if len(self.searched) > 1:
            chosen = trial.suggest_categorical("method", tuple(e.method for e in self.searched))
            entry = next(e for e in self.searched if e.method == chosen)
        parameters = dict(entry.fixed)
        for knob, domain in entry.knobs:
            parameters[knob] = _suggest(trial, f"{entry.method}.{knob}", domain)
        return make_method(entry.method, parameters)

    def baselines(self, spec: TableSpec, budgets: Sequence[int]) -> list[Method]:
        """The settings to run first, without repeats: as written, then those fitted to budgets in bytes."""
        within = [method for entry in self.fitted for method in entry.within(spec, budgets)]
        return list(dict.fromkeys([*self.fixed_settings, *within]))

    @property
    def fingerprint(self) -> str:
        """A hash of all that is searched and run; spaces that differ in it are other spaces."""
        content = {
            "searched": [
                [entry.method, entry.fixed, [[knob, str(type(d)), asdict(d)] for knob, d in entry.knobs]]
                for entry in self.searched
            ],
            "baselines": [
                [method.name, method_parameters(method)] for method in dict.fromkeys(self.fixed_settings)
            ],
        }
        if self.fitted:
            content["fitted"] = [[entry.method, entry.parameters, entry.knob] for entry in self.fitted]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_space(space: str | Path | Mapping[str, Any], folder: Path | None = None) -> Space:
    """A space from a preset's name, a YAML file (relative to `folder`), or its content.

    Raises ConfigError where a name or value is not what the methods declare.
    """
    if isinstance(space, Mapping):
        return _space(space, "in the study file")
    if str(space) in preset_names():
        return _space(read_yaml(preset_path(str(space))), str(space))
    path = Path(space)
    if path.suffix not in (".yaml", ".yml"):
        names = {name: None for name in preset_names()}
        raise ConfigError(
            f"there is no search space {str(space)!r}; {nearest(str(space), names)}, or a .yaml file"
        )
    path = path if folder is None else folder / path
    return _space(read_yaml(path), str(path))


def load_spaces(spaces: Sequence[str | Mapping[str, Any]]) -> Space:
    """Several spaces as one. Raises ConfigError where two search the same method, naming both."""
    loaded = [load_space(space) for space in spaces]
    owner: dict[str, str] = {}
    for space in loaded:
        for entry in space.searched:
            if entry.method in owner:
                raise ConfigError(
                    f"search spaces {owner[entry.method]} and {space.source} both search {entry.method}; "
                    "leave one of them out, or write one space file with the knobs of both"
                )
            owner[entry.method] = space.source
    return Space(
        " + ".join(space.source for space in loaded),
        tuple(entry for space in loaded for entry in space.searched),
        tuple(method for space in loaded for method in space.fixed_settings),
        tuple(entry for space in loaded for entry in space.fitted),
    )


def preset_names() -> tuple[str, ...]:
    """The search spaces that come with the package."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def preset_path(name: str) -> Path:
    """The file of a preset. Raises ConfigError where there is none of that name."""
    if name not in preset_names():
        raise ConfigError(
            f"there is no search space {name!r}; {nearest(name, {n: None for n in preset_names()})}"
        )
    return PRESETS / f"{name}.yaml"


class _Entry(Section):
    method: str
    knobs: dict[str, Any] = Field(default_factory=dict)
    baselines: list[dict[str, Any]] = Field(default_factory=list)


class _File(Section):
    summary: str = ""
    methods: list[_Entry]


class _Range(Section):
    low: float
    high: float
    log: bool | None = None


def _space(content: Mapping[str, Any], source: str) -> Space:
    entries = parse(_File, content, source).methods
    searched: list[Searched] = []
    settings: list[Method] = []
    fitted: list[Fitted] = []
    try:
        for entry in entries:
            if entry.method in [other.method for other in searched]:
                raise ConfigError(f"method {entry.method!r} has knobs in two entries; join them into one")
            for setting in entry.baselines:
                if FIT in setting.values():
                    fitted.append(_fitted(entry.method, setting))
                else:
                    settings.append(make_method(entry.method, setting))
            narrowed = _narrow(entry)
            if narrowed.knobs:
                searched.append(narrowed)
            elif not entry.baselines or entry.knobs:
                settings.append(make_method(entry.method, dict(narrowed.fixed)))
    except ConfigError as error:
        raise ConfigError(f"search space {source}: {error}") from None
    if not settings and not searched and not fitted:
        raise ConfigError(f"search space {source}: `methods` is empty; name at least one")
    return Space(source, tuple(searched), tuple(settings), tuple(fitted))


def _fitted(method: str, setting: Mapping[str, Any]) -> Fitted:
    free = [knob for knob, value in setting.items() if value == FIT]
    if len(free) > 1:
        raise ConfigError(f"{method}: {' and '.join(free)} cannot be fitted to one budget; leave one {FIT!r}")
    return Fitted(method, tuple((k, v) for k, v in setting.items() if k != free[0]), free[0])


def fitted_part(preset: str) -> dict[str, Any]:
    """Of a preset the baselines that are fitted to budgets, as a space's content.

    Raises ConfigError where it has none.
    """
    methods = [
        {"method": entry["method"], "baselines": fitted}
        for entry in read_yaml(preset_path(preset))["methods"]
        if (fitted := [setting for setting in entry.get("baselines", []) if FIT in setting.values()])
    ]
    if not methods:
        raise ConfigError(f"search space {preset}: no baseline has a knob that is {FIT!r}; add one")
    return {"methods": methods}


def _narrow(entry: _Entry) -> Searched:
    declared = {name: domain for name, _, domain, _ in method_named(entry.method).knobs()}
    fixed, knobs = [], []
    for name, wanted in entry.knobs.items():
        if name not in declared:
            raise ConfigError(f"method {entry.method!r} has no knob {name!r}; {nearest(name, declared)}")
        where = f"{entry.method}.{name}"
        domain = declared[name] if wanted == "all" else _domain(where, declared[name], wanted)
        if isinstance(domain, Choice) and len(domain.values) == 1:
            fixed.append((name, domain.values[0]))
        elif not isinstance(domain, Choice) and domain.low == domain.high:
            fixed.append((name, domain.low))
        else:
            knobs.append((name, domain))
    return Searched(entry.method, tuple(fixed), tuple(knobs))


def _domain(where: str, declared: Domain, wanted: Any) -> Domain:
    """What a YAML value leaves of a knob's domain."""
    if isinstance(wanted, Mapping):
        if isinstance(declared, Choice):
            raise ConfigError(f"{where} is one of {declared}; write a list of some of them, not {wanted}")
        limits = parse(_Range, wanted, where)
        low, high = (
            int(x) if x.is_integer() and isinstance(declared, Int) else x for x in (limits.low, limits.high)
        )
        if low not in declared or high not in declared or low > high:
            raise ConfigError(f"{where} takes {declared}; the range {low:g} .. {high:g} must lie within")
        log = declared.log if limits.log is None else limits.log
        if log and low <= 0:
            raise ConfigError(f"{where} has no logarithm at {low:g}; write a low above 0, or `log: false`")
        return Int(int(low), int(high), log) if isinstance(declared, Int) else Float(low, high, log)
    values = wanted if isinstance(wanted, list) else [wanted]
    wrong = [value for value in values if value not in declared]
    if wrong or not values:
        raise ConfigError(f"{where} takes {declared}; found {wrong or 'an empty list'}")
    if isinstance(declared, Float):
        values = [float(value) for value in values]
    if all(isinstance(value, int | float) for value in values):
        values = sorted(values)
    return Choice(tuple(dict.fromkeys(values)))


def _suggest(trial: Trial, name: str, domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return domain.values[trial.suggest_int(name, 0, len(domain.values) - 1)]
    if isinstance(domain, Int):
        return trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    value = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    return min(max(float(f"{value:.{_digits(domain)}g}"), domain.low), domain.high)


def _digits(domain: Float) -> int:
    """Digits of the values that are tried: two, more where a range is too narrow for ten steps of those.

    Few digits are a name that a person can read and type, and no two trainings of what is the same.
    """
    middle = (domain.low + domain.high) / 2
    first = math.floor(math.log10(middle))  # the place of the first digit
    digits = 2
    while digits < 17 and round((domain.high - domain.low) / 10.0 ** (first - digits + 1)) < 10:
        digits += 1
    return digits
