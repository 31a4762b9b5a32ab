"""The picture of the long tail: the share of look-ups that the most frequent ids of a field take."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from autoembed.report.front_plot import COLOURS, FONT_SIZE, SALT
from autoembed.report.legend import add_legend
from autoembed.stats import Counts, FieldStats

NAMED_FIELDS = len(COLOURS)
GREY = "#BBBBBB"


def draw_long_tail(fields: Sequence[FieldStats]) -> Figure:
    """One line per field: x the share of its ids, most frequent first, y their share of train look-ups.

    The fields with most ids are named, the others are grey; row 0 is left out. A line that hugs the upper
    left corner is a field whose few frequent ids carry nearly all look-ups. Without any ids it says so.
    """
    with matplotlib.rc_context({"font.size": FONT_SIZE, "axes.linewidth": 0.8, "svg.hashsalt": SALT}):
        figure = Figure(figsize=(8.0, 4.4), layout="constrained")
        axes = figure.add_subplot()
        ordered = [field for field in largest_first(fields) if field.counts[1:].sum() > 0]
        for place, field in enumerate(ordered):
            named = place < NAMED_FIELDS
            numbers, lookups = coverage(field.ranked_counts)
            axes.plot(
                numbers / numbers[-1],
                lookups / lookups[-1],
                color=COLOURS[place] if named else GREY,
                linewidth=1.6 if named else 0.8,
                zorder=len(ordered) - place,
                label=_label(field) if named else None,
            )
        handles = list(axes.lines[:NAMED_FIELDS])
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("share of the field's ids, most frequent first")
        axes.set_ylabel("share of the look-ups in train")
        axes.grid(True, linewidth=0.4, color="#DDDDDD")
        others = len(ordered) - NAMED_FIELDS
        if others > 0:
            handles += axes.plot([], [], color=GREY, linewidth=0.8, label=f"{others} smaller fields")
        if not ordered:
            axes.text(0.5, 0.5, "no field has ids in train", ha="center", transform=axes.transAxes)
            return figure
        add_legend(figure, handles, "outside right upper")
    return figure


def _label(field: FieldStats) -> str:
    """The field with the ids that its line stands for; where ids are hashed, with the rows that they use."""
    return f"{field.name} ({len(field.ranked_counts) - 1:,} {'ids' if field.ranked else 'used rows'})"


def coverage(counts: Counts, points: int = 400) -> tuple[Counts, Counts]:
    """The most frequent k ids of a field, for up to `points` values of k, and their look-ups (k first).

    Row 0 is left out. Both start at the most frequent id and end with all ids.
    """
    ids = len(counts) - 1
    numbers = np.unique(np.geomspace(1, max(ids, 1), points).round().astype(np.int64))
    return numbers[numbers <= ids], np.cumsum(counts[1:])[numbers[numbers <= ids] - 1]


def largest_first(fields: Sequence[FieldStats]) -> list[FieldStats]:
    """Fields by their rows, most first."""
    return sorted(fields, key=lambda field: -field.rows)
