"""The compression methods, written out. A method is made from its name and its knobs' values."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autoembed.config import ConfigError
from autoembed.methods.alpt import Alpt
from autoembed.methods.base import Float, Method
from autoembed.methods.bebr import Bebr
from autoembed.methods.cached_low_precision import CachedLowPrecision
from autoembed.methods.cafe import Cafe
from autoembed.methods.cafe_offline import CafeOffline
from autoembed.methods.dqrm import Dqrm
from autoembed.methods.fiited import Fiited
from autoembed.methods.fp16 import Fp16
from autoembed.methods.frequency_cut import FrequencyCut
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.hashing import Hashing
from autoembed.methods.lma import Lma
from autoembed.methods.low_precision import LowPrecision
from autoembed.methods.mixed_dimension import MixedDimension
from autoembed.methods.mpe import Mpe
from autoembed.methods.mpe_budget import MpeBudget
from autoembed.methods.pep import Pep
from autoembed.methods.quotient_remainder import QuotientRemainder
from autoembed.methods.robe import Robe
from autoembed.methods.uniform import Uniform

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        FullPrecision,
        Fp16,
        LowPrecision,
        Alpt,
        CachedLowPrecision,
        Uniform,
        Bebr,
        Dqrm,
        FrequencyCut,
        Hashing,
        CafeOffline,
        Cafe,
        QuotientRemainder,
        Robe,
        Lma,
        Fiited,
        MixedDimension,
        Mpe,
        MpeBudget,
        Pep,
    )
}


def make_method(name: str, parameters: Mapping[str, Any]) -> Method:
    """A method with some of its knobs set. Raises ConfigError for a name or value that is not there."""
    method = method_named(name)
    knobs = {knob: domain for knob, _, domain, _ in method.knobs()}
    chosen = {}
    for knob, value in parameters.items():
        if knob not in knobs:
            raise ConfigError(f"method {name!r} has no knob {knob!r}; {nearest(knob, knobs)}")
        if value not in knobs[knob]:
            raise ConfigError(f"{name}.{knob} takes {knobs[knob]}, found {value!r}; change the value")
        chosen[knob] = float(value) if isinstance(knobs[knob], Float) else value
    return method(**chosen)


def method_named(name: str) -> type[Method]:
    """The method of that name. Raises ConfigError naming the nearest ones."""
    if name not in METHODS:
        raise ConfigError(f"there is no method {name!r}; {nearest(name, METHODS)}")
    return METHODS[name]


def method_parameters(method: Method) -> dict[str, Any]:
    """All knobs of a method with their values: `make_method(method.name, ...)` gives it back."""
    return asdict(method)  # type: ignore[call-overload,no-any-return]


def describe() -> list[dict[str, Any]]:
    """What `autoembed methods` shows, as plain JSON values.

    `bags`: fields of several ids work; `trains_small`: training itself holds fewer rows than the data has;
    `ranks`: rows in order of frequency are needed, true, false, or `KNOB=VALUE` where only that needs them.
    """
    return [
        {
            "name": method.name,
            "summary": method.summary,
            "source": method.source,
            "levers": list(method.levers),
            "parameters": [
                {"name": name, "default": default, "domain": str(domain), "help": text}
                for name, default, domain, text in method.knobs()
            ],
            "bags": method.bags,
            "trains_small": method.trains_small,
            "ranks": method.ranks if isinstance(method.ranks, bool) else "{}={}".format(*method.ranks),
        }
        for method in METHODS.values()
    ]


def nearest(name: str, names: Mapping[str, Any]) -> str:
    """For error messages: what may have been meant, and all that is valid."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid are: {', '.join(names) or 'none'}"
