"""The front for people: terminal tables, Markdown tables and a picture, all from one FrontRecord."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoembed.budget import format_bytes
from autoembed.front import FrontRecord, Pick, Point, Split
from autoembed.front.point import Objective
from autoembed.report.text import percent, with_interval


@dataclass(frozen=True)
class FrontRow:
    """One point as text; `marks`: * for the front, knee, reference, baseline."""

    marks: str
    candidate: str
    size: str
    ratio: str
    valid: str
    test_auc: str
    auc_loss: str
    test_logloss: str
    seeds: str
    fte: str


@dataclass(frozen=True)
class AnswerRow:
    """A question to the front and its pick as text; `candidate` says why where there is none."""

    question: str
    candidate: str
    size: str
    ratio: str
    loss: str
    trial: str


FRONT_HEADER = FrontRow(
    "", "candidate", "size", "ratio", "valid", "test AUC", "AUC loss", "test logloss", "seeds", "FTE"
)
METRICS: dict[Objective, str] = {"auc": "AUC", "logloss": "logloss"}
LEAST_WIDTH = 24  # of the candidate column; longer names wrap
NARROW = 12  # of it, where the terminal has no room for that; questions wrap then, too
# what a narrow terminal can do without, first to go first
OPTIONAL: dict[Objective, tuple[str, ...]] = {
    "auc": ("seeds", "test_logloss", "valid", "fte", "auc_loss", "loss", "trial", "ratio", "marks"),
    "logloss": ("seeds", "auc_loss", "test_auc", "valid", "fte", "loss", "trial", "ratio", "marks"),
}


def front_table(record: FrontRecord, *, everything: bool = False) -> list[FrontRow]:
    """Rows in the order of bytes: the front, the reference and the baselines, or every point."""
    points = record.points if everything else [p for p in record.points if _is_shown(record, p)]
    return [_front_row(record, point) for point in points]


def answer_header(record: FrontRecord) -> AnswerRow:
    """The loss is of the study's objective."""
    loss = f"test {METRICS[record.objective]} loss"
    return AnswerRow("wanted", "candidate", "size", "ratio", loss, "trial")


def answer_table(record: FrontRecord) -> list[AnswerRow]:
    """Budgets, the knee, allowed losses and ratios, with the picks of each."""
    rows = [_answer_row(record, f"budget {format_bytes(a.asked)}", a.pick, a.problem) for a in record.budgets]
    if record.knee:
        rows.append(_answer_row(record, "knee", record.knee))
    rows += [
        _answer_row(record, f"valid AUC loss <= {a.asked:g}", a.pick, a.problem) for a in record.iso_accuracy
    ]
    rows += [_answer_row(record, f"{a.asked:g}x smaller", a.pick, a.problem) for a in record.iso_memory]
    return rows


def front_notes(record: FrontRecord) -> list[str]:
    """What stands under the tables, a sentence a line."""
    notes = []
    origin, held_out, cost = record.reference_point, record.held_out, record.cost
    if origin and record.hypervolume is not None:
        notes.append(
            f"hypervolume {record.hypervolume:.4f} on valid; reference point {format_bytes(origin.bytes)}, "
            f"{origin.objective} {origin.value:.5f}; box {origin.decades:g} decades x {origin.height:g}"
        )
    if held_out and held_out.reference and held_out.optimistic_hypervolume is not None:
        notes.append(
            f"on test, from {held_out.reference.objective} {held_out.reference.value:.5f}: "
            f"{held_out.pessimistic_hypervolume:.4f} pessimistic ({len(held_out.pessimistic)} points), "
            f"{held_out.optimistic_hypervolume:.4f} optimistic ({len(held_out.optimistic)} of "
            f"{len(record.front)} points)"
        )
    fte = f", {cost.fte:.1f} full-training equivalents (FTE)" if cost.fte is not None else ""
    notes.append(
        f"cost: {cost.trials} trials ({cost.complete} complete, {cost.rejected} rejected before training, "
        f"{cost.failed} failed), {cost.seconds:.0f} s of training{fte}"
    )
    notes.append("± is half a 95 % t-interval over seeds; AUC loss pairs equal seeds with full precision")
    return notes


def print_front(record: FrontRecord, console: Console, *, everything: bool = False) -> None:
    """The tables and notes; a narrow terminal gets fewer columns."""
    title = f"Front (*): chosen on valid {record.objective}, reported on test"
    rows = front_table(record, everything=everything)
    optional = OPTIONAL[record.objective]
    _print_table(console, FRONT_HEADER, rows, optional, title=title)
    hidden = len(record.points) - len(rows)
    if hidden:
        _print_line(console, f"{hidden} dominated candidates are not shown; the CSV has all of them")
    _print_table(console, answer_header(record), answer_table(record), optional, title="Picks")
    for note in front_notes(record):
        _print_line(console, note)


def summary_markdown(record: FrontRecord) -> str:
    """Markdown tables for a page on a study: full precision and a pick per budget, picks, notes."""
    lines = [
        "| budget | picked on validation | bytes | payload | scales | index, header | ratio "
        "| test AUC | AUC loss | test logloss | seeds | FTE |",
        _rule(12),
    ]
    if record.reference:
        lines.append(_markdown_row(record, "full precision", record.reference))
    for answer in record.budgets:
        budget = format_bytes(answer.asked)
        if answer.pick:
            lines.append(_markdown_row(record, budget, answer.pick.point))
        else:
            lines.append(f"| {budget} | {answer.problem} |" + " |" * 10)
    answers = answer_table(record)[len(record.budgets) :]
    if answers:
        header = vars(answer_header(record))
        lines += ["", _cells(header.values()), _rule(len(header))]
        lines += [_cells(vars(row).values()) for row in answers]
    return "\n".join([*lines, "", *(f"- {note}" for note in front_notes(record))]) + "\n"


def plot_front(
    record: FrontRecord,
    path: Path,
    *,
    split: Split = "test",
    error_bars: Literal["t", "range"] = "t",
    title: str = "",
) -> None:
    """Draw accuracy against bytes to a PNG or SVG file, by its suffix.

    `error_bars`: 95 % t-intervals over seeds, or their range. Raises ValueError for other suffixes, and
    where no trial has the metric of `split`.
    """
    _check_suffix(path)
    # matplotlib takes half a second to import; a table should not wait for it
    from autoembed.report.front_plot import draw_front, save

    save(draw_front(record, split=split, error_bars=error_bars, title=title), path)


def plot_plans(plans: Sequence[Mapping[str, Any]], full_bytes: int, path: Path) -> None:
    """Draw what the bytes of a joint search's plans went to, to a PNG or SVG file (explain_plot.py)."""
    _check_suffix(path)
    from autoembed.report.explain_plot import draw_plans
    from autoembed.report.front_plot import save

    save(draw_plans(plans, full_bytes), path)


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{path}: a picture's name must end in .png or .svg")


def _is_shown(record: FrontRecord, point: Point) -> bool:
    return point.role != "search" or point.candidate in record.front


def _front_row(record: FrontRecord, point: Point) -> FrontRow:
    marks = ["*"] if point.candidate in record.front else []
    if record.knee and record.knee.point.candidate == point.candidate:
        marks.append("knee")
    if point.role != "search":
        marks.append(point.role)
    return FrontRow(
        marks=" ".join(marks),
        candidate=point.label,
        size=format_bytes(point.bytes),
        ratio=_ratio(record, point),
        valid=with_interval(point.metrics.get(f"valid_{record.objective}")),
        test_auc=with_interval(point.metrics.get("test_auc")),
        auc_loss=_loss(point, "auc"),
        test_logloss=with_interval(point.metrics.get("test_logloss")),
        seeds=str(len(point.repeats)),
        fte=_fte(point),
    )


def _answer_row(record: FrontRecord, question: str, pick: Pick | None, problem: str = "") -> AnswerRow:
    if pick is None:
        return AnswerRow(question, problem, "", "", "", "")
    point = pick.point
    return AnswerRow(
        question,
        point.label,
        format_bytes(point.bytes),
        _ratio(record, point),
        _loss(point, record.objective),
        str(pick.trial),
    )


def _print_table(
    console: Console,
    header: FrontRow | AnswerRow,
    rows: Sequence[FrontRow | AnswerRow],
    spare: Sequence[str],
    *,
    title: str,
) -> None:
    columns = dict(vars(header))
    widths = {name: max(len(getattr(row, name)) for row in (header, *rows)) for name in columns}
    optional = iter(spare)
    while (room := _candidate_width(console.width, columns, widths)) < min(widths["candidate"], LEAST_WIDTH):
        name = next(optional, None)
        if name is None:
            break
        columns.pop(name, None)
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name, heading in columns.items():
        justify: Literal["left", "right"] = "left" if name in ("question", "candidate", "marks") else "right"
        if name == "candidate":
            table.add_column(heading, width=min(widths[name], max(room, NARROW)), overflow="fold")
        elif name == "question" and room < NARROW:
            table.add_column(heading, min_width=NARROW, overflow="fold")
        else:
            table.add_column(heading, width=widths[name], justify=justify, no_wrap=True)
    for row in rows:
        on_front = isinstance(row, FrontRow) and row.marks.startswith("*")
        table.add_row(*(Text(getattr(row, name)) for name in columns), style="bold" if on_front else "")
    console.print(table)


def _candidate_width(width: int, columns: Iterable[str], widths: dict[str, int]) -> int:
    """Characters left for the candidate; a column takes three more for its padding and rule."""
    return width - 2 - sum(3 + (widths[name] if name != "candidate" else 0) for name in columns)


def _print_line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False)


def _markdown_row(record: FrontRecord, budget: str, point: Point) -> str:
    parts = point.parts
    scales = parts.get("scales", 0) + parts.get("offsets", 0) + parts.get("projections", 0)
    return _cells(
        [
            budget,
            point.label,
            f"{point.bytes:,}",
            percent(parts.get("payload", 0), point.bytes),
            percent(scales, point.bytes),
            percent(parts.get("index", 0) + parts.get("header", 0), point.bytes),
            _ratio(record, point),
            with_interval(point.metrics.get("test_auc")),
            _loss(point, "auc"),
            with_interval(point.metrics.get("test_logloss")),
            str(len(point.repeats)),
            _fte(point),
        ]
    )


def _cells(values: Iterable[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def _loss(point: Point, objective: Objective) -> str:
    return "-" if point.role == "reference" else with_interval(point.losses.get(f"test_{objective}"))


def _ratio(record: FrontRecord, point: Point) -> str:
    return f"{record.reference.bytes / point.bytes:.3g}x" if record.reference else ""


def _fte(point: Point) -> str:
    return f"{point.fte:.2f}" if point.fte is not None else ""
