"""Searches for the smallest model within a drop, from within.csv: what every budget loses, by seed and split.

    python studies/joint/run.py --max-drop 0.0005
    python studies/joint/within.py

Losses are of AUC against the full-precision model of the same seed; means and 95 % t-intervals over seeds.
"""

import csv
from pathlib import Path

from autoembed.statistics import Interval, mean_interval

FILE = Path(__file__).parent / "within.csv"


def main() -> None:
    with FILE.open(newline="", encoding="utf-8") as file:
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


def text(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.4f}"
    return f"{interval.mean:.4f} +- {(interval.high - interval.low) / 2:.4f}"


if __name__ == "__main__":
    main()
