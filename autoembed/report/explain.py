"""A point of a joint search explained on the terminal: a row per field, and what more bytes would buy."""

from collections import Counter
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autoembed.budget import format_bytes


def explanation(content: dict[str, Any], full_bytes: int) -> RenderableType:
    """`content` as `autoembed.joint.explain.explained` made it; full_bytes of the full-precision tables."""
    table = Table(box=box.SIMPLE_HEAD, title=f"plan within {format_bytes(content['budget_bytes'])}")
    for name in ("field", "look-ups", "rows", "stored", "bytes", "predicted loss", "stored as (ids)"):
        table.add_column(name, justify="left" if name in ("field", "stored as (ids)") else "right")
    for field in content["fields"]:
        kinds: Counter[str] = Counter()
        for group in field["groups"]:
            kinds[group["choice"]] += group["stop"] - group["start"]
        table.add_row(
            Text(field["name"]),
            f"{field['lookups']:.1%}",
            f"{field['rows']:,}",
            f"{field['stored_rows']:,}",
            format_bytes(field["bytes"]),
            f"{field['loss']:.2g}",
            ", ".join(f"{kind} ({rows:,})" for kind, rows in kinds.most_common(4)),
        )
    return Group(table, *map(Text, _sentences(content, full_bytes)))


def _sentences(content: dict[str, Any], full_bytes: int) -> list[str]:
    step = max(full_bytes // 100, 1)
    lines = [
        f"predicted loss {content['loss']:.3g} (no plan of these choices is below {content['bound']:.3g}); "
        f"another {format_bytes(step)}, 1 % of full precision, would save about "
        f"{min(content['shadow_price'] * step, content['loss']):.2g}"
    ]
    ranks = content.get("rank_correlation")
    if ranks is not None:
        how = "every choice of every group" if content["measured_every_choice"] else "one choice of each kind"
        lines.append(f"prices rank random plans at {ranks:.2f} (Spearman) after measuring {how}")
    if "planning_seconds" in content:
        lines.append(f"planned in {content['planning_seconds']:.2g} seconds of the processor")
    if content.get("reason"):
        lines.append(content["reason"])
    lines += [_trial(trial) for trial in content.get("tried", ())]
    best = content["next"]
    if best is not None:
        lines.append(
            f"the next bytes go to {best['field']}, rows {best['start']:,} to {best['stop'] - 1:,}: "
            f"{best['from']} -> {best['to']} saves {best['saves']:.2g} for {format_bytes(best['bytes'])}"
        )
    return lines


def _trial(trial: dict[str, Any]) -> str:
    valid = trial["valid"]
    came = "diverged" if valid is None else f"valid AUC {valid['auc']:.5f}, logloss {valid['logloss']:.5f}"
    return f"tried: {1 - trial['teacher']:.0%} of labels at rate {trial['rate']:g}: {came}"
