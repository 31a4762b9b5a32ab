"""Which methods need rows in order of frequency, and the refusal where a field's rows are in none.

A plan of ranges of rows means ranges of frequency only where rows are ranks. Rows of a field that is hashed
without a vocabulary are not (`FieldStats.ranked`), and a method that cuts them by rank would cut at random.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from autoembed.stats import Stats

Result = TypeVar("Result")
Ranks = bool | tuple[str, Any]  # always or never; or with one value of a knob: its name and the value


def needs_ranks(ranks: Ranks, knobs: Mapping[str, Any]) -> bool:
    """Whether a method with these values of its knobs needs them."""
    return ranks if isinstance(ranks, bool) else knobs[ranks[0]] == ranks[1]


def refuse_unranked(stats: Stats, user: str, instead: str) -> None:
    """Raise ValueError naming `user` and the first field without ranks; `instead` says what to choose."""
    for field in stats.fields:
        if not field.ranked:
            raise ValueError(
                f"{user} needs rows in order of frequency; field {field.name!r} is hashed without a "
                f"vocabulary: remove its hash_rows, or choose {instead}"
            )


def ranked_only(call: Callable[..., Result]) -> Callable[..., Result]:
    """`footprint` or `table` of a method -> the same, but refusing what its `ranks` forbid."""

    @wraps(call)
    def checked(method: Any, spec: Any, *arguments: Any, **named: Any) -> Result:
        if needs_ranks(method.ranks, vars(method)):
            refuse_unranked(spec.stats, *_words(method))
        return call(method, spec, *arguments, **named)

    return checked


def _words(method: Any) -> tuple[str, str]:
    """Who needs ranks, and what does not."""
    from autoembed.methods import METHODS  # the list knows the methods, whose interface knows this file

    free = ", ".join(name for name, other in METHODS.items() if other.ranks is False)
    if isinstance(method.ranks, bool):
        return method.name, f"one of {free}"
    knob, value = method.ranks
    return f"{method.name} with {knob}={value}", f"another {knob}, or one of {free}"
