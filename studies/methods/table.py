"""Loss of test AUC by method and budget, from results.csv (searches), fitted.csv (fitted settings) and
further.csv (settings drawn beside them).

    python studies/methods/table.py [epinions frappe ml1m]
    python studies/methods/table.py --parts > studies/methods/parts.md

Of all the pick that validates better, how many times smaller its file is, its loss against full precision
of the same seed and half a 95 % interval over seeds; with --parts its bytes by part, what training held,
AUC and log loss with their intervals, and what was spent. Markdown on standard output.
"""

import argparse
import csv
from pathlib import Path

HERE = Path(__file__).parent
Row = dict[str, str]


def rows() -> list[Row]:
    found: list[Row] = []
    for name in ("results.csv", "fitted.csv", "further.csv"):
        with (HERE / name).open(newline="", encoding="utf-8") as file:
            found += csv.DictReader(file)
    return found


def better(cell: list[Row]) -> Row | None:
    """The row that validates best; None where no setting fitted the budget."""
    picks = [row for row in cell if row["valid_auc"]]
    return max(picks, key=lambda row: float(row["valid_auc"]), default=None)


def told(row: Row | None) -> str:
    if row is None:
        return "none fits"
    full = int(row["budget_bytes"]) * float(row["budget"].removeprefix("1/"))
    loss = f"{float(row['test_loss']):.4f}"
    if row["test_loss_low"]:
        loss += f" +- {(float(row['test_loss_high']) - float(row['test_loss_low'])) / 2:.4f}"
    seeds = "" if row["seeds"] == "3" else f", {row['seeds']} seed{'s' * (row['seeds'] != '1')}"
    return f"{loss} ({full / int(row['total_bytes']):.3g}x{seeds})"


PARTS = (
    *("method", "budget", "file", "payload", "scales", "index", "other", "training MB"),
    *("test AUC", "test log loss", "seeds", "trainings", "setting"),
)


def print_parts(found: list[Row]) -> None:
    """Every pick: bytes of its parts, peak of tables and optimizer state, metrics with 95 % intervals."""
    print(TITLE)
    for data in dict.fromkeys(row["data"] for row in found):
        print(f"\n## {data}\n\n| {' | '.join(PARTS)} |\n|{' --- |' * len(PARTS)}")
        mine = [row for row in found if row["data"] == data]
        for method, budget in sorted({(row["method"], row["budget"]) for row in mine}, key=order):
            row = better([r for r in mine if (r["method"], r["budget"]) == (method, budget)])
            if row is not None:
                print(f"| `{method}` | {budget} | {' | '.join(parts_of(row))} |")


TITLE = """# Every pick, by its bytes

Written by `python studies/methods/table.py --parts` from `results.csv`, `fitted.csv` and `further.csv`;
budgets, data and how picks are made are those of README.md. Bytes of the exported file by part; `other` is
header, offsets and projections. `training MB`: rows and optimizer state at their peak, 10^6 bytes. Test AUC
and log loss: mean and half a 95 % interval over seeds. `trainings`: full-training equivalents of the search,
or of all fitted or all further settings, that the pick comes from."""


def order(cell: tuple[str, str]) -> tuple[str, float]:
    return cell[0], float(cell[1].removeprefix("1/"))


def parts_of(row: Row) -> list[str]:
    other = sum(int(row[part]) for part in ("header", "offsets", "projections"))
    sizes = [int(row[part]) for part in ("total_bytes", "payload", "scales", "index")]
    held = f"{int(row['peak_table_bytes']) / 1e6:.2f}"
    metrics = [interval(row, name) for name in ("test_auc", "test_logloss")]
    setting = row["candidate"].removeprefix(f"{row['method']} ")
    return [
        *(f"{size:,}" for size in (*sizes, other)),
        held,
        *metrics,
        row["seeds"],
        row["search_fte"],
        setting,
    ]


def interval(row: Row, name: str) -> str:
    mean = f"{float(row[name]):.4f}"
    if not row[f"{name}_low"]:
        return mean
    return f"{mean} +- {(float(row[f'{name}_high']) - float(row[f'{name}_low'])) / 2:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*")
    parser.add_argument("--parts", action="store_true", help="every pick with its bytes by part")
    options = parser.parse_args()
    found = rows()
    if options.parts:
        print_parts(found)
        return
    budgets = list(dict.fromkeys(row["budget"] for row in found))
    for data in options.data or dict.fromkeys(row["data"] for row in found):
        print(f"| {data} | {' | '.join(budgets)} |")
        print("| --- |" + " --- |" * len(budgets))
        for method in sorted({row["method"] for row in found if row["data"] == data}):
            mine = [row for row in found if (row["data"], row["method"]) == (data, method)]
            cells = [told(better([row for row in mine if row["budget"] == budget])) for budget in budgets]
            print(f"| `{method}` | {' | '.join(cells)} |")
        print()


if __name__ == "__main__":
    main()
