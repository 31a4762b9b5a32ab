"""The picture of a walk's plans: what the bytes of every budget went to, and how its ids are stored."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autoembed.budget import format_bytes
from autoembed.report.front_plot import COLOURS, styled
from autoembed.report.legend import add_legend

FIELDS = 7  # that take the most bytes get a colour of their own
FORMS = (
    "16 or 32 bits",
    "3 to 8 bits",
    "1 or 2 bits",
    "several widths in a row",
    "fewer dimensions",
    "codebooks",
    "shared rows",
    "row 0 of the field",
)


def draw_plans(plans: Sequence[Mapping[str, Any]], full_bytes: int) -> Figure:
    """Plans as `autoembed.run.walked_plans` returns them, one column each, the largest budget first.

    Above the share of bytes by field, below the share of ids by how they are stored.
    Raises ValueError where there is no plan.
    """
    if not plans:
        raise ValueError("there is no plan to draw; only points of `search_space: joint` have one")
    plans = sorted(plans, key=lambda plan: -plan["budget_bytes"])
    names = [
        f"{full_bytes / plan['budget_bytes']:.3g}x\n{format_bytes(plan['budget_bytes'])}" for plan in plans
    ]
    with styled():
        figure = Figure(figsize=(max(8.0, 2.0 + 0.9 * len(plans)), 6.5), layout="constrained")
        bytes_axes, forms_axes = figure.subplots(2, 1, sharex=True)
        _stack(bytes_axes, names, _by_field(plans), "rows and codes by field")
        _stack(forms_axes, names, _by_form(plans), "ids by how they are stored")
        forms_axes.set_xlabel("budget")
    return figure


def form(choice: str, dim: int) -> str:
    """Which of FORMS a choice such as `own int4 d16` is, in a table of `dim` dimensions."""
    if choice == "zero":
        return FORMS[7]
    if not choice.startswith("own"):
        return FORMS[5] if choice.startswith("codebook") else FORMS[6]
    if "+" in choice:
        return FORMS[3]
    if int(choice.rsplit("d", 1)[1]) < dim:
        return FORMS[4]
    found = re.search(r"int(\d)", choice)
    bits = int(found[1]) if found else 16
    return FORMS[2] if bits <= 2 else FORMS[1] if bits <= 8 else FORMS[0]


def _by_field(plans: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    total: Counter[str] = Counter()
    for plan in plans:
        payload = sum(field["bytes"] for field in plan["fields"]) or 1
        for field in plan["fields"]:
            total[field["name"]] += field["bytes"] / payload
    named = [name for name, _ in total.most_common(FIELDS)]
    shares: dict[str, list[float]] = {name: [] for name in named}
    rest = []
    for plan in plans:
        sizes = {field["name"]: field["bytes"] for field in plan["fields"]}
        payload = sum(sizes.values()) or 1
        for name in named:
            shares[name].append(sizes[name] / payload)
        rest.append(sum(size for name, size in sizes.items() if name not in shares) / payload)
    return {**shares, "other fields": rest} if len(total) > FIELDS else shares


def _by_form(plans: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    shares: dict[str, list[float]] = {name: [] for name in FORMS}
    for plan in plans:
        ids: Counter[str] = Counter()
        for group in (group for field in plan["fields"] for group in field["groups"]):
            ids[form(group["choice"], plan["dim"])] += group["stop"] - group["start"]
        for name in FORMS:
            shares[name].append(ids[name] / max(ids.total(), 1))
    return shares


def _stack(axes: Axes, names: Sequence[str], parts: Mapping[str, Sequence[float]], title: str) -> None:
    columns = range(len(names))  # names may be equal
    below = [0.0] * len(names)
    for number, (label, shares) in enumerate(parts.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.bar(columns, shares, bottom=below, color=colour, edgecolor="white", linewidth=0.5, label=label)
        below = [base + share for base, share in zip(below, shares, strict=True)]
    axes.set_xticks(columns, names)
    axes.set_ylim(0, 1)
    axes.set_title(title, loc="left", fontsize=10)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    add_legend(axes, axes.containers, "center left").set_bbox_to_anchor((1.0, 0.5))
