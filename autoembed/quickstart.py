"""The main job from end to end on a generated click log: what a user does by hand, with the same files.

It leaves in its folder: clicks.csv, logs.yaml, study.yaml, prepared/, run/, model/. Running it again goes on
where it stopped.
"""

import shlex
from pathlib import Path

from rich.console import Console

from autoembed.data.config import load_data_config
from autoembed.data.generate import BAG_SEPARATOR, generate, small
from autoembed.data.prepare import prepare
from autoembed.data.prepared import open_prepared
from autoembed.files import write_file
from autoembed.report.export import print_export
from autoembed.report.front import plot_front, print_front
from autoembed.report.stats import print_stats, stats_rows
from autoembed.run import export_pick, pick_trial, run_front
from autoembed.runtime import load
from autoembed.search.driver import run_study
from autoembed.search.progress import LiveView, StageBar
from autoembed.search.study import load_study

BUDGET = "1/7.8"

STUDY = """\
# A small study: full precision, baselines, sampled candidates, a second seed for the points of the front.
data: prepared
model: {name: dlrm, dim: 16, hidden: [64, 32], bottom: [32]}
training: {batch_size: 1024, learning_rate: 0.002, epochs: 3}
search_space: smoke
# a little above 1/4, 1/8, ...: scales and the index take bytes too, and no budget is ever exceeded
budgets: [1/3.9, 1/7.8, 1/15, 1/31, 1/62]
trials: 8
seeds: 3
"""


def run_quickstart(out: Path, workers: int, console: Console) -> None:
    """Generate, prepare, search, draw, export, evaluate; `out` is made. Every step is a command too."""
    out.mkdir(parents=True, exist_ok=True)
    log, logs, study = out / "clicks.csv", out / "logs.yaml", out / "study.yaml"
    spec = small()
    if not log.exists():
        generate(spec, log)
    fields = "\n".join(
        f'  {name}: {{bag: true, pooling: mean, separator: "{BAG_SEPARATOR}"}}' if field in spec.bags
        else f"  {name}: {{}}"
        for field, name in enumerate(spec.categorical_columns)
    )  # fmt: skip
    write_file(
        logs,
        [
            f"path: {log.name}\nlabel: label\ndense: [{', '.join(spec.dense_columns)}]\n"
            f"categorical:\n{fields}\nsplit: {{random: {{valid: 0.1, test: 0.1, seed: 0}}}}\n".encode()
        ],
    )
    write_file(study, [STUDY.encode()])

    _say(console, f"autoembed prepare {_quoted(logs)} -o {_quoted(out / 'prepared')}")
    with StageBar(console) as bar:
        data = prepare(load_data_config(logs), out / "prepared", progress=bar)
    _say(console, f"autoembed stats {_quoted(out / 'prepared')}")
    print_stats(stats_rows(data), console)

    run = out / "run"
    _say(console, f"autoembed search {_quoted(study)} --run {_quoted(run)} --set workers={workers}")
    with LiveView(console) as view:
        run_study(load_study(study, [f"workers={workers}"]), run, progress=view)
    record = run_front(run)
    print_front(record, console)
    _say(console, f"autoembed plot {_quoted(run)}")
    for picture in (run / "front.png", run / "front.svg"):
        plot_front(record, picture)
        console.print(f"drew {picture}", markup=False, highlight=False)

    model = out / "model"
    _say(console, f"autoembed export {_quoted(run)} --budget {BUDGET} -o {_quoted(model)} --overwrite")
    verified = export_pick(run, pick_trial(run, budget=BUDGET), model, overwrite=True)
    print_export(model, verified, console)
    _say(console, f"autoembed evaluate {_quoted(model)} {_quoted(out / 'prepared')}")
    metrics = load(model).evaluate(open_prepared(out / "prepared"), "test")
    console.print(f"test: AUC {metrics.auc:.6f}, logloss {metrics.logloss:.6f}", highlight=False)


def _say(console: Console, command: str) -> None:
    console.print(f"\n$ {command}", style="bold", markup=False, highlight=False, soft_wrap=True)


def _quoted(path: Path) -> str:
    """As a shell reads it."""
    return shlex.quote(str(path))
