"""Loss of test AUC by method and budget, from results.csv (searches) and fitted.csv (fitted settings).

    python studies/methods/table.py [epinions frappe ml1m]

Of both the pick that validates better, how many times smaller its file is, its loss against full precision
of the same seed and half a 95 % interval over seeds. Markdown on standard output.
"""

import csv
import sys
from pathlib import Path

HERE = Path(__file__).parent
Row = dict[str, str]


def rows() -> list[Row]:
    found: list[Row] = []
    for name in ("results.csv", "fitted.csv"):
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


def main() -> None:
    found = rows()
    budgets = list(dict.fromkeys(row["budget"] for row in found))
    for data in sys.argv[1:] or dict.fromkeys(row["data"] for row in found):
        print(f"| {data} | {' | '.join(budgets)} |")
        print("| --- |" + " --- |" * len(budgets))
        for method in sorted({row["method"] for row in found if row["data"] == data}):
            mine = [row for row in found if (row["data"], row["method"]) == (data, method)]
            cells = [told(better([row for row in mine if row["budget"] == budget])) for budget in budgets]
            print(f"| `{method}` | {' | '.join(cells)} |")
        print()


if __name__ == "__main__":
    main()
