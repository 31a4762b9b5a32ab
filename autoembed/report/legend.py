"""Legends of names that people gave, which matplotlib drops (`_user`) or reads as formulas (`$a$`)."""

from collections.abc import Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

Place = Literal["center left", "outside right upper"]


def add_legend(owner: Axes | Figure, handles: Sequence[Any], place: Place) -> Legend:
    """One entry for each of `handles` (lines, stacks of bars), whose text is its label as it is written."""
    names = [str(handle.get_label()) for handle in handles]
    # numbers stand for the names: matplotlib before 3.10 drops `_user` even where it is passed
    numbers = [str(number) for number in range(len(names))]
    legend: Legend = owner.legend(handles, numbers, loc=place, frameon=False, fontsize=8)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    return legend
