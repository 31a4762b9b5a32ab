"""Every method alone, at the same budgets, with the same search effort: what each one really gives.

    python studies/methods/run.py                                   all data sets, all methods
    python studies/methods/run.py epinions --methods uniform mpe    some of them
    python studies/methods/run.py --fitted                          one setting a budget instead, no search
    python studies/methods/run.py --methods lma --further 3         settings at random beside a search
    python studies/methods/run.py epinions --fitted --space studies/methods/quotient_paths.yaml
    python studies/methods/run.py --read                            only read what is finished

Each method searches its own preset of `search_spaces/` under the tuned full-precision recipe of
`studies/references/`, with as many trials as every other method; one pick per budget is chosen on the
validation split and repeated with further seeds. With --fitted there is no search: each method trains the
settings of its preset that the byte model fits to a budget (`KNOB: fit`), so that every budget that it can
meet has a point near it. --further gives a method as many more settings, drawn at random from its preset, so
that all methods can have the same number. --space takes a search space of one's own, under the name of its
file. A finished or interrupted search goes on where it stopped. Searches are kept in `methods/` in the
working directory, or in --out; figures go to `results.csv`, `fitted.csv` or `further.csv` beside this file,
a row per data set, method and budget.
"""

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from further import further

from autoembed.config import ConfigError, Section, load
from autoembed.front import Point
from autoembed.methods import METHODS
from autoembed.models import ModelConfig
from autoembed.record import read_record
from autoembed.run import run_front
from autoembed.search.driver import run_study
from autoembed.search.events import Event, TrialEnded
from autoembed.search.study import StudyConfig, StudyError
from autoembed.space import fitted_part
from autoembed.training import TrainingConfig

HERE = Path(__file__).parent
DATA = ("epinions", "frappe", "ml1m")
# a little above 1/4, 1/16, ...: scales and the index take bytes too, and no budget is ever exceeded
BUDGETS = ("1/3.9", "1/15.5", "1/62", "1/248")
# 16 bits are never below 1/2: studies/low_precision has them
NO_BUDGET = ("full_precision", "fp16", "low_precision")
# rows whose steps move by themselves keep them in the row, which takes another file layout
ROW_SCALES = ("alpt", "cached_low_precision")
COLUMNS = (
    *("data", "method", "budget", "budget_bytes", "candidate", "total_bytes"),
    *("payload", "scales", "offsets", "projections", "index", "header", "peak_table_bytes", "seeds"),
    *(
        "valid_auc",
        "test_auc",
        "test_auc_low",
        "test_auc_high",
        "test_loss",
        "test_loss_low",
        "test_loss_high",
    ),
    *("test_logloss", "test_logloss_low", "test_logloss_high", "search_fte", "problem"),
)


class Recipe(Section):
    """A tuned full-precision recipe of studies/references."""

    data: str
    model: ModelConfig
    training: TrainingConfig


def study(
    data: str, method: str, space: str | dict[str, Any], trials: int, seeds: int, workers: int
) -> StudyConfig:
    """The study of one method; only the search space differs between methods."""
    recipe = load(Recipe, HERE.parent / "references" / f"{data}.yaml")
    return StudyConfig(
        data=str(HERE.parent / "data" / f"{data}.yaml"),
        search_space=space,
        budgets=BUDGETS,
        model=recipe.model,
        training=recipe.training,
        trials=trials,
        seeds=seeds,
        seed=1,
        workers=workers,
        profile="packed-row-scale" if method in ROW_SCALES else "packed",
    )


def rows(data: str, method: str, run: Path) -> Iterator[dict[str, Any]]:
    """One row per budget: the pick, its bytes by part, its metrics with 95 % intervals over seeds.

    `test_loss` is the paired difference of AUC to full precision, positive where the pick is worse.
    """
    front = run_front(run)
    peaks = {r.number: r.peak_table_bytes for r in map(read_record, _records(run))}
    for label, answer in zip(BUDGETS, front.budgets, strict=True):
        common = {"data": data, "method": method, "budget": label, "budget_bytes": int(answer.asked)}
        common["search_fte"] = "" if front.cost.fte is None else round(front.cost.fte, 2)
        if answer.pick is None:
            yield {**common, "problem": answer.problem}
        else:
            yield {**common, **_figures(answer.pick.point, peaks)}


def _figures(point: Point, peaks: dict[int, int]) -> dict[str, Any]:
    auc, logloss = (point.interval("test", name) for name in ("auc", "logloss"))
    loss = point.losses.get("test_auc")
    return {
        "candidate": point.label,
        "total_bytes": point.bytes,
        **{part: point.parts[part] for part in COLUMNS[6:12]},
        "peak_table_bytes": max(peaks[trial] for trial in point.trials),
        "seeds": len(point.repeats),
        "valid_auc": round(point.value("valid", "auc"), 5),
        **_rounded("test_auc", auc),
        **(_rounded("test_loss", loss) if loss is not None else {}),
        **_rounded("test_logloss", logloss),
    }


def _rounded(name: str, interval: Any) -> dict[str, Any]:
    """Mean and bounds; one seed has no bounds."""
    bounds = {f"{name}_low": interval.low, f"{name}_high": interval.high}
    known = {key: round(value, 5) for key, value in bounds.items() if value is not None}
    return {name: round(interval.mean, 5), **known}


def _records(run: Path) -> list[Path]:
    return sorted((run / "trials").glob("*/record.json"))


def _told(data: str, method: str) -> Any:
    def tell(event: Event) -> None:
        if isinstance(event, TrialEnded):
            record = event.record
            auc = "" if record.test_auc is None else f"{record.test_auc:.5f}"
            what = f"{record.candidate} seed {record.seed}: {record.state}"
            print(f"{data} {what} {record.total_bytes:,} B {auc}", flush=True)

    return tell


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", default=DATA, help=f"of {', '.join(DATA)}")
    parser.add_argument("--methods", nargs="*", default=[m for m in METHODS if m not in NO_BUDGET])
    parser.add_argument("--trials", type=int, default=8, help="trials of every method's search [8]")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("methods"), help="folder of the searches")
    parser.add_argument("--fitted", action="store_true", help="settings fitted to the budgets, no search")
    parser.add_argument("--further", type=int, default=0, metavar="N", help="N settings at random, no search")
    parser.add_argument("--space", type=Path, help="a file in place of the presets of methods")
    parser.add_argument("--read", action="store_true", help="train nothing, read what is finished")
    options = parser.parse_args()
    table: list[dict[str, Any]] = []
    for data in options.data:
        for method in [options.space.stem] if options.space else options.methods:
            kind = "fitted" if options.fitted else "further" if options.further else "results"
            run = options.out / data / (method if kind == "results" else f"{method}-{kind}")
            trials = options.trials if kind == "results" else 0
            try:
                if not options.read:
                    preset = fitted_part(method) if options.fitted and not options.space else method
                    space = str(options.space) if options.space else preset
                    config = study(data, method, space, trials, options.seeds, options.workers)
                    if options.further:
                        drawn = further(config, method, options.further, run)
                        config = config.model_copy(update={"search_space": drawn})
                    run_study(config, run, progress=_told(data, method))
                table += rows(data, method, run)
            except (StudyError, ConfigError) as error:
                print(f"{data} {method}: {error}", flush=True)
            _write(table, HERE / f"{kind}.csv")


def _write(table: list[dict[str, Any]], path: Path) -> None:
    """The figures of this call in place of earlier ones for the same data and method; others stay."""
    done = {(row["data"], row["method"]) for row in table}
    kept: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.DictReader(file) if (row["data"], row["method"]) not in done]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted([*kept, *table], key=lambda row: (row["data"], row["method"])))


if __name__ == "__main__":
    main()
