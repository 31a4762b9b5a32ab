"""The picture of a front: accuracy against bytes. It reads a FrontRecord and decides nothing."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autoembed.budget import format_bytes
from autoembed.front import FrontRecord, Point, Split, sign
from autoembed.report.byte_axis import add_ratio_axis, set_byte_axis
from autoembed.report.legend import add_legend

# Okabe and Ito's palette, safe for colour-blind readers, without its yellow, which vanishes in print;
# the marker shape says the same as the colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F5539", "#4D4D4D")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
# candidates that lost more than this against the best are drawn at the lower edge
WINDOW = {"auc": 0.03, "logloss": 0.06}
LABEL_WIDTH = 0.06  # of a value at the lower edge, as a share of the axis
FONT_SIZE = 9.0
# with a fixed salt the same record gives the same SVG
SALT = "autoembed"
FRONT_COLOUR, BUDGET_COLOUR = "#333333", "#8A1C7C"
DASHES = (0, (6, 3))
# keeps small print readable on top of lines and markers
BACKING = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
ErrorBars = Literal["t", "range"]


def draw_front(
    record: FrontRecord, *, split: Split = "test", error_bars: ErrorBars = "t", title: str = ""
) -> Figure:
    """A figure of every point: the metric of `split` against bytes on a log axis.

    Points without that metric are left out. Raises ValueError where none is left.
    """
    name = f"{split}_{record.objective}"
    points = [point for point in record.points if name in point.metrics]
    if not points:
        raise ValueError(f"no complete trial has a {split} {record.objective}; there is nothing to draw")
    with styled():
        figure = Figure(figsize=(8.0, 5.0), layout="constrained")
        axes = figure.add_subplot()
        picture = _Picture(record, points, axes, split, error_bars)
        picture.draw()
        figure.suptitle(title or _title(record, split), fontsize=10.5, x=0.01, ha="left", parse_math=False)
        caption = _caption(record, split, error_bars)
        figure.supxlabel(caption, fontsize=7.5, x=0.01, ha="left", color="#444444")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG (200 dots per inch) or an SVG, by the suffix of `path`."""
    with styled():
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, dpi=200, metadata=metadata)


def styled() -> AbstractContextManager[None]:
    return matplotlib.rc_context({"font.size": FONT_SIZE, "axes.linewidth": 0.8, "svg.hashsalt": SALT})


class _Picture:
    def __init__(
        self, record: FrontRecord, points: Sequence[Point], axes: Axes, split: Split, error_bars: ErrorBars
    ) -> None:
        self.record = record
        self.points = points
        self.axes = axes
        self.split = split
        self.error_bars = error_bars
        self.methods = sorted({point.method for point in points if point.role != "reference"})
        self.low, self.high = self._value_limits()

    def draw(self) -> None:
        self._set_axes()
        self._label_beyond()
        self._draw_reference()
        self._draw_front_line()
        for point in self.points:
            self._draw_point(point)
        self._mark_knee()
        self._draw_budgets()
        self._draw_legend()

    def _value(self, point: Point) -> float:
        return point.value(self.split, self.record.objective)

    def _bounds(self, point: Point) -> tuple[float, float]:
        """Ends of the error bar; both are the value where there is one seed."""
        interval = point.interval(self.split, self.record.objective)
        if self.error_bars == "range":
            values = [repeat.metrics[f"{self.split}_{self.record.objective}"] for repeat in point.repeats]
            return min(values), max(values)
        if interval.low is None or interval.high is None:
            return interval.mean, interval.mean
        return interval.low, interval.high

    def _value_limits(self) -> tuple[float, float]:
        """Limits that show the front, the reference and the baselines, if they are within WINDOW of the
        best value; what is worse is drawn as an arrow at the edge. Error bars, which two seeds make very
        long, get as much room again on each side."""
        towards_worse = -sign(self.record.objective)
        best = min(towards_worse * self._value(point) for point in self.points) * towards_worse
        losses = {
            point.candidate: towards_worse * (self._value(point) - best)
            for point in self.points
            if point.role != "search" or point.candidate in self.record.front or self._value(point) == best
        }
        span = max(loss for loss in (0.001, *losses.values()) if loss <= WINDOW[self.record.objective])
        visible = [point for point in self.points if losses.get(point.candidate, math.inf) <= span]
        ends = [towards_worse * (end - best) for point in visible for end in self._bounds(point)]
        better = min(max(0.1 * span, -min(ends)), span)
        worse = min(max(span, *ends), 2 * span)
        limits = best - towards_worse * (better + 0.08 * span), best + towards_worse * (worse + 0.12 * span)
        return min(limits), max(limits)

    def _colour(self, point: Point) -> str:
        return "black" if point.role == "reference" else COLOURS[self._rank(point) % len(COLOURS)]

    def _marker(self, point: Point) -> str:
        return "*" if point.role == "reference" else MARKERS[self._rank(point) % len(MARKERS)]

    def _rank(self, point: Point) -> int:
        return self.methods.index(point.method)

    def _draw_reference(self) -> None:
        reference = self.record.reference
        if reference is None or reference not in self.points:
            return
        low, high = self._bounds(reference)
        self.axes.axhspan(low, high, color="#999999", alpha=0.22, linewidth=0, zorder=0)
        self.axes.axhline(self._value(reference), color="black", linewidth=1.0, linestyle=DASHES, zorder=1)

    def _draw_front_line(self) -> None:
        """Steps: between two points, and beyond the last, a budget gets the smaller one."""
        front = [point for point in self.record.front_points if point in self.points]
        if not front:
            return
        self.axes.plot(
            [*(point.bytes for point in front), self.axes.get_xlim()[1]],
            [*(self._value(point) for point in front), self._value(front[-1])],
            drawstyle="steps-post",
            color=FRONT_COLOUR,
            linewidth=1.4,
            zorder=2,
        )

    def _draw_point(self, point: Point) -> None:
        on_front = point.candidate in self.record.front
        colour = self._colour(point)
        value = self._value(point)
        edge = "black" if on_front and point.role == "search" else colour
        if self._is_within(point):
            self._draw_error_bar(point, 1.0 if on_front else 0.6)
            marker = self._marker(point)
        else:
            marker, edge = "$\\downarrow$", colour
            value = self._worst
        self.axes.plot(
            point.bytes,
            value,
            marker=marker,
            markersize=11 if point.role == "reference" else 7.5 if on_front else 5.5,
            markerfacecolor=colour if point.role != "baseline" else "white",
            markeredgecolor=edge,
            markeredgewidth=1.1,
            alpha=1.0 if on_front or point.role != "search" else 0.45,
            linestyle="none",
            clip_on=False,
            zorder=5 if on_front else 4,
        )

    def _draw_error_bar(self, point: Point, alpha: float) -> None:
        low, high = self._bounds(point)
        if high > low:
            self.axes.errorbar(
                point.bytes, (low + high) / 2, yerr=(high - low) / 2, fmt="none", ecolor=self._colour(point),
                elinewidth=1.1, capsize=2.5, zorder=3, alpha=alpha,
            )  # fmt: skip

    def _is_within(self, point: Point) -> bool:
        """Whether the point is no worse than the limits."""
        return self.low <= self._value(point) <= self.high

    def _label_beyond(self) -> None:
        """Write the values of points worse than the limits at the lower edge: of the front first, and of
        baselines where they do not cover these."""
        low, high = map(math.log, self.axes.get_xlim())
        on_front = {point.candidate for point in self.points if point.candidate in self.record.front}
        named = [p for p in self.points if p.role != "search" or p.candidate in on_front]
        taken: list[float] = []
        for point in sorted(named, key=lambda p: (p.candidate not in on_front, p.role != "search", p.bytes)):
            place = (math.log(point.bytes) - low) / (high - low)
            if self._is_within(point) or any(abs(place - other) <= LABEL_WIDTH for other in taken):
                continue
            taken.append(place)
            self.axes.annotate(
                f"{self._value(point):.3f}",
                (point.bytes, self._worst),
                textcoords="offset points",
                xytext=(6, 3),
                fontsize=6.5,
                color=self._colour(point),
                bbox=BACKING,
                zorder=6,
            )

    @property
    def _worst(self) -> float:
        """The value at the lower edge of the picture."""
        return self.low if self.record.objective == "auc" else self.high

    def _mark_knee(self) -> None:
        knee = self.record.knee
        if knee is None or knee.point not in self.points or len(self.record.front) < 3:
            return
        self.axes.annotate(
            "knee",
            (knee.point.bytes, self._value(knee.point)),
            textcoords="offset points",
            xytext=(-16, 16),
            ha="right",
            fontsize=7.5,
            bbox=BACKING,
            zorder=6,
            arrowprops={"arrowstyle": "-", "linewidth": 0.7, "shrinkB": 5},
        )

    def _set_axes(self) -> None:
        sizes = [point.bytes for point in self.points]
        sizes += [int(answer.asked) for answer in self.record.budgets]
        set_byte_axis(self.axes, min(sizes) / 1.35, max(sizes) * 1.35, "size of the exported tables")
        if self.record.reference is not None:
            add_ratio_axis(self.axes, self.record.reference.bytes, "times smaller than full precision")
        self.axes.set_ylim(self._worst, self.low + self.high - self._worst)
        lower = "" if self.record.objective == "auc" else " (axis upside down: better is higher)"
        self.axes.set_ylabel(f"{_metric_name(self.record, self.split)}{lower}")
        self.axes.ticklabel_format(axis="y", useOffset=False)
        self.axes.grid(True, color="#DDDDDD", linewidth=0.6)
        self.axes.set_axisbelow(True)

    def _draw_budgets(self) -> None:
        for answer in self.record.budgets:
            self.axes.axvline(answer.asked, color=BUDGET_COLOUR, linewidth=0.9, linestyle=":", zorder=1)
            self.axes.annotate(
                f"budget {format_bytes(answer.asked)}",
                (answer.asked, 0.02),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                xytext=(-2, 0),
                rotation=90,
                ha="right",
                va="bottom",
                fontsize=7,
                color=BUDGET_COLOUR,
                bbox=BACKING,
                zorder=2.5,
            )

    def _draw_legend(self) -> None:
        handles = [Line2D([], [], color=FRONT_COLOUR, linewidth=1.4, label="front (chosen on validation)")]
        reference = self.record.reference
        if reference is not None and reference in self.points:
            handles.append(
                Line2D([], [], color="black", linewidth=1.0, linestyle=DASHES, marker="*", markersize=9,
                       label="full precision")
            )  # fmt: skip
        for method in self.methods:
            mine = [p for p in self.points if p.method == method and p.role != "reference"]
            colour, marker = self._colour(mine[0]), self._marker(mine[0])
            hollow = all(point.role == "baseline" for point in mine)
            handles.append(
                Line2D([], [], linestyle="none", marker=marker, markersize=6.5, markeredgecolor=colour,
                       markerfacecolor="white" if hollow else colour, label=method)
            )  # fmt: skip
        if any(point.role == "baseline" for point in self.points):
            handles.append(Line2D([], [], linestyle="none", label="hollow: baseline"))
        if any(p.role == "search" and p.candidate not in self.record.front for p in self.points):
            handles.append(Line2D([], [], linestyle="none", label="faded: dominated"))
        if any(not self.low <= self._value(point) <= self.high for point in self.points):
            handles.append(Line2D([], [], linestyle="none", label="arrow: below the picture"))
        figure = self.axes.get_figure()
        assert isinstance(figure, Figure)
        add_legend(figure, handles, "outside right upper")


def _metric_name(record: FrontRecord, split: Split) -> str:
    return f"{split} {'AUC' if record.objective == 'auc' else 'logloss'}"


def _title(record: FrontRecord, split: Split) -> str:
    metric = _metric_name(record, split)
    return (
        f"{metric[0].upper()}{metric[1:]} against bytes: {len(record.points)} candidates, "
        f"{len(record.front)} on the front"
    )


def _caption(record: FrontRecord, split: Split, error_bars: ErrorBars) -> str:
    seeds = sorted({len(point.repeats) for point in record.front_points})
    counts = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    bars = "95 % t-intervals over seeds" if error_bars == "t" else "the range over seeds"
    lines = [
        f"Chosen on validation {record.objective}, drawn on {split}. Bars and band: {bars} "
        f"({counts} on the front); no bar: one seed."
    ]
    origin = record.reference_point
    if origin and record.hypervolume is not None:
        lines.append(
            f"Hypervolume {record.hypervolume:.3f} on validation, from {format_bytes(origin.bytes)} and "
            f"{origin.objective} {origin.value:.4f}, over {origin.decades:g} decades x {origin.height:g}."
        )
    return "\n".join(lines)
