"""The rows of results.csv by setting: means, and 95 % intervals over seeds, as a table in Markdown."""

import re
from collections import defaultdict
from statistics import mean

from autoembed.statistics import Interval, mean_interval, paired_interval

Row = dict[str, str]
HEAD = (
    *("method", "setting", "file, bytes", "ratio", "index", "tables MB", "training MB", "process MB"),
    *("examples/s", "test AUC", "loss of AUC", "logloss", "seeds"),
)


def summary(rows: list[Row]) -> str:
    """One line per setting, methods together; losses are paired with full precision by seed."""
    settings: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        # what is fitted to a budget, and why a point of the joint search was kept, may differ between seeds
        knobs = "" if row["method"] == "joint" else row["knobs"]
        rest = (row[name] for name in ("profile", "optimizer", "rates"))
        place = (row["method"], row["budget"], knobs, *rest)
        settings[place].append(row)
    usual = rows[0]["optimizer"]
    full = {
        row["seed"]: row for row in rows if row["method"] == "full_precision" and row["optimizer"] == usual
    }
    trunks = {row["seed"]: row for row in rows if row["method"] == "joint's trunk"}
    lines = [_line(HEAD), _line(("---",) * len(HEAD))]
    methods = list(dict.fromkeys(place[0] for place in settings))
    ordered = sorted(settings, key=lambda place: methods.index(place[0]))
    for place in ordered:
        # the joint search reads its data whole and shuffles it otherwise: its losses are to its own trunk
        lines.append(_line(_cells(settings[place], trunks if place[0] == "joint" else full, usual)))
    return "\n".join(lines)


def _cells(rows: list[Row], full: dict[str, Row], usual: str) -> tuple[str, ...]:
    first = rows[0]
    optimizer = "" if first["optimizer"] in ("", usual) else f", {first['optimizer']}"
    optimizer += f", rates {first['rates']}" if first["rates"].count(" ") > 1 else ""
    setting = first["budget"] if first["method"] == "joint" else re.sub(r"=(0\.\d+)", r"=\1", first["knobs"])
    size = max(int(row["total_bytes"]) for row in rows)
    reference = max(int(row["total_bytes"]) for row in full.values())
    auc, logloss = (mean_interval([float(row[n]) for row in rows]) for n in ("test_auc", "test_logloss"))
    paired = [row for row in rows if row["seed"] in full]
    loss = ""
    if paired and (optimizer or not first["method"].endswith(("full_precision", "trunk"))):
        references = [float(full[row["seed"]]["test_auc"]) for row in paired]
        loss = _pm(paired_interval(references, [float(row["test_auc"]) for row in paired]))
    # a point of the joint search that took no step has none
    speeds = [float(row["examples_per_second"]) for row in rows if row["examples_per_second"]]
    return (
        first["method"],
        setting.strip() + optimizer,
        f"{size:,}",
        f"{reference / size:.1f}x",
        f"{max(int(row['index']) for row in rows) / size:.1%}",
        *(_megabytes(rows, name) for name in ("table_bytes", "private_training", "private_peak")),
        f"{mean(speeds):,.0f}" if speeds else "",
        _pm(auc),
        loss,
        _pm(logloss),
        str(len(rows)),
    )


def _megabytes(rows: list[Row], name: str) -> str:
    """10^6 bytes, a mean over seeds; of the process without what it held before there were tables."""
    before = "private_before" if name.startswith("private") else None
    return f"{mean(int(row[name]) - (int(row[before]) if before else 0) for row in rows) / 1e6:,.0f}"


def _pm(interval: Interval) -> str:
    text = f"{interval.mean:.4f}"
    return text if interval.high is None else f"{text} ± {interval.high - interval.mean:.4f}"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
