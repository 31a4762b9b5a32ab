"""The joint search against single methods, from results.csv: paired differences, hypervolumes, equal loss.
And searches for the smallest model within a drop, from within.csv.

    python studies/joint/compare.py            Markdown on standard output

Losses are of test AUC, against the full-precision model of the same seed that was trained beside the method.
At every budget each method shows what its validation picked; pairs are of seeds that both have, intervals
t-intervals of 95 % over pairs.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoembed.statistics import Interval, mean_interval, paired_interval

HERE = Path(__file__).parent
DECADES, HEIGHT = 3.0, 0.01  # the box of hypervolumes, as in autoembed.front
WITHIN = 0.0005
# single methods were measured in files of version 1, where full precision, and so a budget, is larger
VERSION_1 = 1.0015
SEARCHES_WITHIN = HERE / "within.csv"
SINGLES_FULL = (
    "full_precision_of_singles"  # trained beside them; the joint search's trunks are `full_precision`
)


@dataclass(frozen=True)
class Pick:
    """What one method shows for one budget with one seed."""

    bytes: int
    valid: float
    loss: float


Picks = Mapping[str, Mapping[int, Mapping[int, Pick]]]  # by method, budget, seed


def main() -> None:
    for data, (full, picks) in read().items():
        print(f"## {data}\n")
        print_budgets(full, picks)
        print_hypervolumes(full, picks)
        print_equal_loss(full, picks)
    print_within()


def print_within() -> None:
    """Searches for the smallest model within a drop: what every budget loses, and what they cost."""
    with SEARCHES_WITHIN.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    searches = dict.fromkeys((row["data"], row["method"].rpartition(" ")[2]) for row in rows)
    for data, drop in searches:
        mine = [row for row in rows if row["data"] == data and row["method"].endswith(f" within {drop}")]
        full = {row["seed"]: row for row in mine if row["method"].startswith("full_precision")}
        points = [row for row in mine if row["method"].startswith("joint")]
        spent = {seed: sum(float(row["cost_fte"]) for row in mine if row["seed"] == seed) for seed in full}
        costs = [f"{cost / float(full[seed]['cost_fte']):.2f}" for seed, cost in spent.items()]
        print(f"## {data} within {drop}\n\ntrainings of the seed's own trunk in all: {', '.join(costs)}\n")
        print("| budget | valid AUC lost | test AUC lost |\n| --- | --- | --- |")
        for budget in sorted({int(row["budget_bytes"]) for row in points}, reverse=True):
            those = [row for row in points if int(row["budget_bytes"]) == budget]
            lost = [
                text(mean_interval([float(full[row["seed"]][name]) - float(row[name]) for row in those]))
                for name in ("valid_auc", "test_auc")
            ]
            ratio = int(next(iter(full.values()))["total_bytes"]) / budget
            print(f"| 1/{ratio:.3g} | {' | '.join(lost)} |")
        print()


def read() -> dict[str, tuple[int, Picks]]:
    """By data set: bytes of full precision, and the picks."""
    with (HERE / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, tuple[int, Picks]] = {}
    for data in dict.fromkeys(row["data"] for row in rows):
        mine = [row for row in rows if row["data"] == data]
        full = references(mine, "full_precision")
        picks: dict[str, dict[int, dict[int, Pick]]] = defaultdict(lambda: defaultdict(dict))
        for row in mine:
            seed = int(row["seed"])
            reference = full if row["method"] == "joint" else beside(mine, row["method"]) or full
            if row["method"].partition(" ")[0] not in ("full_precision", SINGLES_FULL) and seed in reference:
                loss = float(reference[seed]["test_auc"]) - float(row["test_auc"])
                pick = Pick(int(row["total_bytes"]), float(row["valid_auc"]), loss)
                picks[row["method"]][int(row["budget_bytes"])][seed] = pick
        found[data] = int(next(iter(full.values()))["total_bytes"]), picks
    return found


def beside(rows: Sequence[Mapping[str, str]], method: str) -> dict[int, Mapping[str, str]]:
    """The full-precision models of the search that a single method's pick is from: `uniform (fitted)`."""
    _, space, named = method.partition(" ")
    return references(rows, SINGLES_FULL + space + named)


def references(rows: Sequence[Mapping[str, str]], method: str) -> dict[int, Mapping[str, str]]:
    """The full-precision models of this name by seed."""
    return {int(row["seed"]): row for row in rows if row["method"] == method}


def print_budgets(full: int, picks: Picks) -> None:
    print("| budget | joint | best single method by validation | joint better by, paired | pairs |")
    print("| --- | --- | --- | --- | --- |")
    for budget in sorted(picks["joint"], reverse=True):
        joint = picks["joint"][budget]
        within = {m: pick_within(p, budget) for m, p in picks.items() if m != "joint"}
        singles = {method: found for method, found in within.items() if found}
        line = f"| 1/{full / budget:.3g} | {text(mean_interval([p.loss for p in joint.values()]))} |"
        if singles:
            best = max(singles, key=lambda m: mean([p.valid for p in singles[m].values()]))
            both = sorted(joint.keys() & singles[best].keys())
            losses = [singles[best][s].loss for s in both]
            gain = paired_interval(losses, [joint[s].loss for s in both])
            print(f"{line} {best} {mean(losses):.4f} | {text(gain)} | {len(both)} |")
        else:
            print(f"{line} none fits | | |")
    print()


def pick_within(budgets: Mapping[int, Mapping[int, Pick]], budget: int) -> Mapping[int, Pick]:
    """A method's pick for a budget by seed; where none was recorded the best one of others that fits."""
    recorded = [b for b in budgets if budget <= b <= VERSION_1 * budget]
    if recorded:
        return budgets[min(recorded)]
    fitting = [p for p in budgets.values() if max(pick.bytes for pick in p.values()) <= budget]
    return max(fitting, key=lambda p: mean([pick.valid for pick in p.values()]), default={})


def print_hypervolumes(full: int, picks: Picks) -> None:
    """Of the picks, seed by seed; `all single methods` takes at each budget the best by validation."""
    print("| method | hypervolume on test | joint more by, paired |")
    print("| --- | --- | --- |")
    joint = {seed: hypervolume(full, picks["joint"], seed) for seed in seeds(picks["joint"])}
    together: dict[int, dict[int, Pick]] = defaultdict(dict)
    for method, budgets in picks.items():
        for budget, by_seed in budgets.items() if method != "joint" else ():
            for seed, pick in by_seed.items():
                if seed not in together[budget] or pick.valid > together[budget][seed].valid:
                    together[budget][seed] = pick
    singles = {m: p for m, p in sorted(picks.items()) if m != "joint"}
    print(f"| joint | {text(mean_interval(list(joint.values())))} | |")
    for method, budgets in {**singles, **({"all single methods": together} if singles else {})}.items():
        # a seed that only some budgets have would make a front of holes
        whole = [s for s in seeds(budgets) if sum(s in b for b in budgets.values()) * 2 > len(budgets)]
        volumes = {seed: hypervolume(full, budgets, seed) for seed in whole if seed in joint}
        if volumes:
            gain = paired_interval([joint[s] for s in volumes], list(volumes.values()))
            print(f"| {method} | {text(mean_interval(list(volumes.values())))} | {text(gain)} |")
    print()


def print_equal_loss(full: int, picks: Picks) -> None:
    """The smallest model within WITHIN, and bytes of the joint front at the losses of MPE's points."""
    front = [(p.bytes, p.loss) for p in averages(picks["joint"])]
    inside = [size for size, loss in front if loss <= WITHIN]
    if inside:
        print(f"Smallest joint model within {WITHIN} of full precision: {full / min(inside):.1f}x.")
    for pick in sorted(set(averages(picks.get("mpe", {}))), key=lambda p: -p.bytes):
        as_good = [size for size, loss in front if loss <= pick.loss]
        if as_good:
            print(
                f"MPE at {full / pick.bytes:.1f}x loses {pick.loss:.4f}: the joint front is "
                f"{pick.bytes / min(as_good):.2f}x smaller at that loss."
            )
    print()


def averages(budgets: Mapping[int, Mapping[int, Pick]]) -> list[Pick]:
    return [
        Pick(
            max(p.bytes for p in by_seed.values()),
            mean([p.valid for p in by_seed.values()]),
            mean([p.loss for p in by_seed.values()]),
        )
        for by_seed in budgets.values()
    ]


def hypervolume(full: int, budgets: Mapping[int, Mapping[int, Pick]], seed: int) -> float:
    """Area in (log10 bytes, loss of test AUC) that the picks of a seed dominate, over the box."""
    points = [by_seed[seed] for by_seed in budgets.values() if seed in by_seed]
    gains = [(math.log10(full / p.bytes), HEIGHT - p.loss) for p in points]
    area = covered = 0.0
    for width, height in sorted(gains, reverse=True):
        if width > 0 and height > covered:
            area += width * (height - covered)
            covered = height
    return area / (DECADES * HEIGHT)


def seeds(budgets: Mapping[int, Mapping[int, Pick]]) -> list[int]:
    return sorted({seed for by_seed in budgets.values() for seed in by_seed})


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def text(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.4f}"
    return f"{interval.mean:.4f} +- {(interval.high - interval.low) / 2:.4f}"


if __name__ == "__main__":
    main()
