"""The commands: parse, call, print; nothing else. Heavy imports wait until a command needs them."""

import io
import json
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

app = typer.Typer(
    name="autoembed",
    help="Click logs and a memory budget in; an accuracy-memory front and a compressed model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
WIDTH_OF_FILES = 180  # a pipe has no width; tables should not lose columns for it
# paths and ids may hold [brackets] and :names: of emoji, which are text and no markup, in cells of tables too
console = Console(
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_OF_FILES,
    markup=False,
    emoji=False,
)
errors = Console(stderr=True, soft_wrap=True, markup=False, emoji=False)

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a search (--run of `autoembed search`).")]


def main() -> None:
    """Entry point. Mistakes of the user end with one message and exit code 2, without a traceback."""
    # A spinning OpenMP pool costs 5-6x on a busy machine; it must be told before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal of ASCII has no sign for +-
            stream.reconfigure(errors="replace")
    try:
        app()
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("AUTOEMBED_TRACEBACK"):
            raise
        what = "error: not enough memory:" if isinstance(error, MemoryError) else "error:"
        errors.print(f"{what} {error}".rstrip(" :"), style="bold red", highlight=False)
        sys.exit(2)


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="Folder for logs, run and model.")] = Path("quickstart"),
    workers: Annotated[int, typer.Option(help="Trainings at a time, one core each.")] = 2,
) -> None:
    """Generate a click log, search it under budgets, draw the front, export and verify a model."""
    from autoembed.quickstart import run_quickstart

    run_quickstart(out, workers, console)


@app.command()
def prepare(
    config: Annotated[Path, typer.Argument(help="YAML: where the logs are and what their columns mean.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the prepared data.")],
    overwrite: Overwrite = False,
) -> None:
    """Read click logs once: vocabularies, memory-mapped columns, checksums."""
    from autoembed.data.config import load_data_config
    from autoembed.data.prepare import prepare as prepare_data
    from autoembed.files import writing

    described = load_data_config(config)
    try:
        with _stage_bar() as progress, writing(out, reads_too=True):
            data = prepare_data(described, out, progress=progress, overwrite=overwrite)
    except KeyboardInterrupt:
        errors.print("interrupted; nothing was written, the same command begins again")
        raise
    rows = {split: data.rows(split) for split in ("train", "valid", "test")}
    console.print(f"prepared {data.path}: {', '.join(f'{n:,} {split}' for split, n in rows.items())} rows")
    bad = data.manifest.get("bad_rows", {})
    if bad.get("count"):
        console.print(f"{bad['count']:,} bad rows were left out: {'; '.join(bad.get('examples', []))}")


@app.command()
def stats(
    data: Annotated[Path, typer.Argument(help="Folder of prepared data.")],
    plot: Annotated[Path | None, typer.Option(help="Draw the long tail to this PNG or SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rows, head and tail, unseen ids and frequency groups of every field."""
    from autoembed.data.prepared import open_prepared
    from autoembed.report.stats import plot_long_tail, print_stats, stats_rows

    if data.is_file():
        raise ValueError(f"{data} is a file; prepare the log first: autoembed prepare {data} -o FOLDER")
    prepared = open_prepared(data)
    rows = stats_rows(prepared)
    if as_json:
        from dataclasses import asdict

        _print_json([asdict(row) for row in rows])
    else:
        print_stats(rows, console)
    if plot is not None:
        plot_long_tail(prepared, plot)
        console.print(f"drew {plot}")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method with its knobs.")] = None,
    as_json: AsJson = False,
) -> None:
    """The compression methods and what they can do."""
    from autoembed.methods import describe

    rows = describe()
    if name is not None:
        rows = [row for row in rows if row["name"] == name]
        if not rows:
            known = ", ".join(row["name"] for row in describe())
            raise ValueError(f"there is no method {name!r}; methods: {known}")
    if as_json:
        _print_json(rows)
    elif name is not None:
        _print_method(rows[0])
    else:
        table = RichTable("method", "levers", "summary")
        for row in rows:
            table.add_row(row["name"], ", ".join(row["levers"]), row["summary"])
        console.print(table)


@app.command()
def spaces(name: Annotated[str | None, typer.Argument(help="Print one preset's YAML.")] = None) -> None:
    """The search spaces that come with the package."""
    from autoembed.space import preset_names, preset_path

    if name is None:
        for preset in (*preset_names(), "joint"):
            console.print(preset)
    elif name == "joint":
        console.print("search_space: joint has no file: its choices follow from the data; see docs/joint.md")
    else:
        console.print(preset_path(name).read_text(encoding="utf-8"), highlight=False, end="")


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the search (runs/NAME).")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: training.epochs=3.")
    ] = None,
) -> None:
    """Dry run: bytes of every method against the budgets, before anything is trained."""
    from autoembed.search.preview import preview
    from autoembed.search.study import load_study

    config = load_study(study, set_ or [])
    table = RichTable("method", "settings", "smallest", "largest", "smallest budget it can meet")
    for row in preview(config, run or _default_run(study)):
        table.add_row(*row)
    console.print(table)


@app.command()
def search(
    study: Annotated[Path, typer.Argument(help="The study file (YAML).")],
    run: Annotated[Path | None, typer.Option("--run", help="Folder of the search (runs/NAME).")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: training.epochs=3.")
    ] = None,
) -> None:
    """Search under the budgets. Stop it at any time; the same command goes on where it stopped."""
    from autoembed.search.driver import run_study
    from autoembed.search.pool import WorkersCannotStart
    from autoembed.search.progress import LiveView
    from autoembed.search.study import StudyError, load_study

    folder = run or _default_run(study)
    config = load_study(study, set_ or [])
    try:
        with LiveView(console) as view:
            run_study(config, folder, progress=view)
    except (StudyError, WorkersCannotStart) as error:
        raise ValueError(str(error)) from error
    _print_front(folder)
    quoted = shlex.quote(str(folder))
    drop = config.joint.max_drop if config.is_joint and config.objective == "auc" else None
    wish = "--knee" if drop is None else f"--max-auc-drop {drop:g}"
    console.print(f"next: autoembed plot {quoted}; autoembed export {quoted} {wish} --out model")


@app.command()
def front(
    run: RunFolder,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write all points to this CSV.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """The Pareto front of a search: chosen on validation, reported on test."""
    from autoembed.front import to_csv, to_json

    record = _front_record(run)
    if csv is not None:
        csv.write_text(to_csv(record), encoding="utf-8")
    if as_json:
        _print_json(json.loads(to_json(record)))
    elif markdown:
        from autoembed.report.front import summary_markdown

        console.print(summary_markdown(record), highlight=False, soft_wrap=True)
    else:
        _print_front(run)


@app.command()
def explain(
    run: RunFolder,
    trial: Annotated[int, typer.Option(help="Number of the trial, as the front names it.")],
    as_json: AsJson = False,
) -> None:
    """Which fields and groups a joint search gave what, why, and what more bytes would buy."""
    from autoembed.report.explain import explanation
    from autoembed.run import explain_trial

    content, full_bytes = explain_trial(run, trial)
    if as_json:
        _print_json(content)
    else:
        console.print(explanation(content, full_bytes))


@app.command()
def plot(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="PNG or SVG file (both, in the run folder).")] = None,
) -> None:
    """Draw accuracy against bytes, and for a joint search what the bytes of every budget went to."""
    from autoembed.report.front import plot_front, plot_plans
    from autoembed.run import walked_plans

    record = _front_record(run)
    paths = [out] if out is not None else [run / "front.png", run / "front.svg"]
    for path in paths:
        plot_front(record, path)
        console.print(f"drew {path}")
    plans, damaged = walked_plans(run)
    for problem in damaged:
        errors.print(f"left out of the plans: {problem}", highlight=False)
    if plans and record.reference is not None:
        for path in paths:
            beside = path.with_name(f"{path.stem}_plans{path.suffix}")
            plot_plans(plans, record.reference.bytes, beside)
            console.print(f"drew {beside}")


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model.")] = Path("model"),
    budget: Annotated[str | None, typer.Option(help="Best model within a size: 8MiB, or 1/16.")] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The knee of the front.")] = False,
    max_auc_drop: Annotated[float | None, typer.Option(help="Smallest model within this AUC drop.")] = None,
    trial: Annotated[int | None, typer.Option(help="This trial.")] = None,
    retrain: Annotated[
        float | None,
        typer.Option(
            help="Train the plan of a joint search anew, for so many trainings; export the better model."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a compressed model, reload it, and check size and predictions against the candidate."""
    from autoembed.run import export_pick, pick_trial

    pick = pick_trial(run, budget=budget, knee=knee, max_auc_drop=max_auc_drop, trial=trial)
    if retrain is not None:
        from autoembed.search.retrain import retrain_trial

        polished = retrain_trial(run, pick.trial, retrain)
        console.print(polished.verdict)
        if polished.pays:
            pick = pick_trial(run, trial=polished.record.number)
    verified = export_pick(run, pick, out, overwrite=overwrite)
    from autoembed.report.export import print_export

    print_export(out, verified, console)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of an exported model or of prepared data.")],
) -> None:
    """Check every file of a model or of prepared data: sizes, checksums, and the byte model."""
    from autoembed.data.prepared import is_prepared, open_prepared
    from autoembed.runtime import ArtifactError, load

    try:
        model = load(folder)  # checks sizes, checksums, and the tables against the byte model
    except ArtifactError as error:
        if not is_prepared(folder):
            raise error from None
        data = open_prepared(folder, verify=True)
        rows = sum(data.rows(split) for split in ("train", "valid", "test"))
        console.print(f"{folder}: prepared data, intact, {rows:,} rows")
    else:
        console.print(f"{folder}: intact, tables {model.table_bytes:,} bytes, equal to the byte model")


@app.command()
def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Folder of an exported model.")],
    data: Annotated[Path, typer.Argument(help="Folder of prepared data, or the YAML of a raw log.")],
    split: Annotated[str, typer.Option(help="train, valid, test, or all rows of a raw log.")] = "test",
    as_json: AsJson = False,
) -> None:
    """AUC and logloss of an exported model, from its files alone."""
    from autoembed.data.config import load_data_config
    from autoembed.data.prepared import open_prepared
    from autoembed.runtime import load

    model = load(artifact)
    if data.is_file():
        metrics = model.evaluate_log(load_data_config(data), None if split == "all" else split)
    else:
        metrics = model.evaluate(open_prepared(data), split)
    if math.isnan(metrics.logloss):
        raise ValueError(f"{data}: there is no row to evaluate on (--split {split})")
    auc = None if math.isnan(metrics.auc) else metrics.auc
    reported = model.manifest.get("metrics", {}).get(split)
    if as_json:
        result = {"auc": auc, "logloss": metrics.logloss, "reported": reported}
        _print_json(result)
        return
    told = "AUC undefined, all labels are alike" if auc is None else f"AUC {auc:.6f}"
    console.print(f"{split}: {told}, logloss {metrics.logloss:.6f}")
    if reported:
        console.print(f"recorded at export: AUC {reported['auc']:.6f}, logloss {reported['logloss']:.6f}")


def _default_run(study: Path) -> Path:
    return Path("runs") / study.stem


def _front_record(run: Path) -> Any:
    from autoembed.run import run_front

    return run_front(run)


def _print_json(content: Any) -> None:
    """Plain ASCII without colours, whatever the terminal: it is read by programs."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


def _print_front(run: Path) -> None:
    from autoembed.report.front import print_front

    print_front(_front_record(run), console)


def _print_method(row: dict[str, Any]) -> None:
    console.print(Text.assemble((row["name"], "bold"), f": {row['summary']}"))
    console.print(f"source: {row['source']}")
    console.print(f"levers: {', '.join(row['levers'])}")
    ranks = row["ranks"] if isinstance(row["ranks"], bool) else f"with {row['ranks']}"
    for label, value in (
        ("fields of several ids", row["bags"]),
        ("training, too, takes fewer bytes", row["trains_small"]),
        ("needs rows in order of frequency", ranks),
    ):
        console.print(f"{label}: {value if isinstance(value, str) else 'yes' if value else 'no'}")
    table = RichTable("knob", "default", "values", "meaning")
    for knob in row["parameters"]:
        table.add_row(knob["name"], str(knob["default"]), str(knob["domain"]), knob["help"])
    console.print(table)


def _stage_bar() -> Any:
    from autoembed.search.progress import StageBar

    return StageBar(console)


if __name__ == "__main__":
    main()
