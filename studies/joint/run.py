"""The joint search on every data set, and the table that compares it with every single method.

    python studies/joint/run.py                          all data sets
    python studies/joint/run.py epinions --out runs      one, its run folder in `runs/epinions`
    python studies/joint/run.py --read --methods methods
    python studies/joint/run.py --add singles            further searches over single methods, nothing else
    python studies/joint/run.py --add together --named fitted
    python studies/joint/run.py --max-drop 0.0005        searches for the smallest model within it

A run that was stopped goes on. `results.csv` beside this file gets one row per data set, budget and seed:
the joint points as walked, and for every single method its pick for each budget, by seed. --methods names a
folder that holds per data set one search over single methods, or several, as `studies/methods/run.py` makes
one a method. Picks are made on validation; --add keeps what is recorded of a method at a budget unless the
new pick, of as many seeds or three, validates better; with --named its methods are called `uniform (fitted)`
and stand, from three seeds on, beside those of searches with another full precision. What is recorded of
data sets and methods that a call does not measure stays. `cost_fte` of a joint point is what the walk spent
on it, the trunk's row carries the trunk; that of a single method is the whole search that it came from.
--max-drop sets `joint.max_drop` and writes `within.csv` in place of `results.csv`; methods there carry the
drop.
"""

import argparse
import csv
import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from autoembed.front import Point
from autoembed.joint.config import JointConfig
from autoembed.record import TrialRecord
from autoembed.run import run_front
from autoembed.search.driver import run_study
from autoembed.search.events import Event, TrialEnded
from autoembed.search.folder import read_records
from autoembed.search.study import load_study, read_config

HERE = Path(__file__).parent
RESULTS, WITHIN = HERE / "results.csv", HERE / "within.csv"
DATA = ("epinions", "frappe", "ml1m")
COLUMNS = ("data", "method", "budget_bytes", "total_bytes", "seed", "valid_auc", "test_auc", "test_logloss")
COLUMNS = (*COLUMNS, "cost_fte")
ENOUGH_SEEDS = 3
SINGLES_FULL = "full_precision_of_singles"  # as compare.py calls them


def joint_rows(data: str, run: Path) -> Iterator[dict[str, Any]]:
    for record in read_records(run):
        as_walked = record.role != "short" and set(record.parameters) <= {"budget"}
        if record.state == "complete" and as_walked:
            budget = record.parameters.get("budget", record.total_bytes)
            yield row(data, record, budget, record.fte)


def single_rows(data: str, folder: Path, budgets: list[int]) -> Iterator[dict[str, Any]]:
    """Of every single method the pick for each budget, by seed: the best of all its searches.

    And the full-precision models that were trained beside them, in which processors differ.
    """
    together = (folder / "config.yaml").is_file()
    runs = [folder] if together else sorted(p for p in folder.iterdir() if (p / "config.yaml").is_file())
    fronts = [(run_front(run), {r.number: r for r in read_records(run)}) for run in runs]
    methods = {point.method for front, _ in fronts for point in front.points} - {"full_precision"}
    for record in fronts[0][1].values() if fronts else ():
        if record.method == "full_precision" and record.state == "complete":
            named = dataclasses.replace(record, method=SINGLES_FULL)
            yield row(data, named, record.total_bytes, record.fte)
    for method, budget in itertools.product(sorted(methods), budgets):
        fitting = [
            (point, records, front.cost.fte)
            for front, records in fronts
            for point in front.points
            if point.bytes <= budget and point.method == method
        ]
        if fitting:
            pick, records, cost = max(fitting, key=lambda found: found[0].value("valid", "auc"))
            for trial in _trials(pick):
                yield row(data, records[trial], budget, cost)


def _trials(point: Point) -> list[int]:
    return [repeat.trial for repeat in point.repeats]


def row(data: str, record: TrialRecord, budget: int, cost: float | None) -> dict[str, Any]:
    values = (record.valid_auc, record.test_auc, record.test_logloss)
    measured = ["" if value is None else round(value, 6) for value in values]
    cost_fte = "" if cost is None else round(cost, 3)
    found = (data, record.method, budget, record.total_bytes, record.seed, *measured, cost_fte)
    return dict(zip(COLUMNS, found, strict=True))


def tell(event: Event) -> None:
    if isinstance(event, TrialEnded):
        record = event.record
        print(f"{record.candidate} seed {record.seed}: {record.total_bytes:,} B, test AUC {record.test_auc}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", default=DATA)
    parser.add_argument("--out", type=Path, default=Path("joint"), help="folder of the run folders")
    parser.add_argument("--methods", type=Path, help="the --out folder of studies/methods/run.py")
    parser.add_argument("--add", type=Path, help="a folder like that of --methods, to add to results.csv")
    parser.add_argument("--named", help="what sets the methods of --add apart from those of other searches")
    parser.add_argument("--read", action="store_true", help="train nothing, read what is finished")
    parser.add_argument("--max-drop", type=float, help="valid AUC that the smallest model may lose")
    options = parser.parse_args()
    path = RESULTS if options.max_drop is None else WITHIN
    if options.add:
        write(added(read(RESULTS), options.add, options.named), RESULTS)
        return
    rows: list[dict[str, Any]] = []
    for data in options.data:
        run = options.out / data
        if not options.read:
            config = load_study(HERE / f"{data}.yaml")
            joint = JointConfig(**config.joint.model_dump() | {"max_drop": options.max_drop})
            run_study(config.model_copy(update={"joint": joint}), run, progress=tell)
        elif read_config(run).joint.max_drop != options.max_drop:
            parser.error(f"{run} holds a search with max_drop {read_config(run).joint.max_drop}")
        found = list(joint_rows(data, run))
        if options.max_drop is not None:
            found = [r | {"method": f"{r['method']} within {options.max_drop:g}"} for r in found]
        rows += found
        budgets = sorted({entry["budget_bytes"] for entry in found if entry["method"] == "joint"})
        if options.methods and (options.methods / data).is_dir():
            rows += single_rows(data, options.methods / data, budgets)
    write(beside_others(rows, path), path)


def beside_others(rows: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """The rows, and what is recorded of other data sets and methods."""
    done = {(row["data"], row["method"]) for row in rows}
    kept = [row for row in read(path) if (row["data"], row["method"]) not in done]
    names = sorted({row["data"] for row in (*rows, *kept)})
    return [row for data in names for row in (*rows, *kept) if row["data"] == data]


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def added(rows: list[dict[str, Any]], folder: Path, named: str | None = None) -> list[dict[str, Any]]:
    """The rows, with those of the folder's picks in place of recorded ones that validate worse."""
    for data in DATA:
        if not (folder / data).is_dir():
            continue
        budgets = {int(r["budget_bytes"]) for r in rows if r["data"] == data and r["method"] == "joint"}
        found = list(single_rows(data, folder / data, sorted(budgets)))
        if named:
            found = [r | {"method": apart(r["method"], named)} for r in found]
        for place in sorted({(r["method"], r["budget_bytes"]) for r in found}):
            new = [r for r in found if (r["method"], r["budget_bytes"]) == place]
            old = [r for r in rows if (r["data"], r["method"], int(r["budget_bytes"])) == (data, *place)]
            # a reference that is recorded was trained beside the other picks
            if old and place[0] in (SINGLES_FULL, apart(SINGLES_FULL, named or "")):
                continue
            # the best of many single runs is best by luck
            enough = len(new) >= (ENOUGH_SEEDS if named else min(len(old), ENOUGH_SEEDS))
            if enough and (not old or valid_auc(new) > valid_auc(old)):
                at = max(number for number, r in enumerate(rows) if r["data"] == data) + 1
                rows = [r for r in [*rows[:at], *new, *rows[at:]] if all(r is not o for o in old)]
    return rows


def apart(method: str, named: str) -> str:
    """As compare.py reads it."""
    return f"{method} ({named})"


def valid_auc(rows: list[dict[str, Any]]) -> float:
    return sum(float(r["valid_auc"]) for r in rows) / len(rows)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
