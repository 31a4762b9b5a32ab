"""What prepared data looks like: a row per field for the terminal, and a picture of the long tail."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoembed.data.hashed_ids import sharing_ids
from autoembed.data.prepared import PreparedData
from autoembed.stats import Counts, frequency_groups, head_share, stats_of


@dataclass(frozen=True)
class Group:
    """A frequency group: rows [start, stop) of its field, and its share of the look-ups in train.

    Rows of a field without a vocabulary are numbered as if they were ranks; unused ones are in no group.
    """

    start: int
    stop: int
    share: float


@dataclass(frozen=True)
class FieldRow:
    """One field. Shares are of look-ups, 0 to 1; `rows` includes row 0, out of vocabulary.

    head_share: look-ups in train that the most frequent 1 % of the ids take. singletons: ids seen once
    in train, also where `min_count` drops them, of `train_ids` distinct ids. unseen: look-ups in a split
    of ids that train never saw. row_0: look-ups in test that read row 0 (unseen, rare or missing).

    Of a field without a vocabulary `hash_rows` is set; singletons and unseen tell of hashed rows in place of
    ids, `train_ids` is an estimate, and sharing the share of these ids that are expected to share their row.
    """

    name: str
    bag: bool
    rows: int
    train_lookups: int
    train_ids: int
    head_share: float
    singletons: int
    unseen_valid: float
    unseen_test: float
    row_0_test: float
    groups: tuple[Group, ...]
    hash_rows: int | None = None
    used_rows: int = 0
    sharing: float = 0.0

    @property
    def singleton_share(self) -> float:
        """Of the distinct ids in train, or of the used rows of a field without a vocabulary."""
        return self.singletons / max(self.train_ids if self.hash_rows is None else self.used_rows, 1)


def stats_rows(data: PreparedData) -> list[FieldRow]:
    """A row per field, in the data's order."""
    rows = []
    for field, entry in zip(stats_of(data).fields, data.manifest["fields"], strict=True):
        lookups = {split: max(count, 1) for split, count in entry["lookups"].items()}
        hash_rows = entry.get("hash_rows")
        rows.append(
            FieldRow(
                name=field.name,
                bag=field.bag,
                rows=field.rows,
                train_lookups=entry["lookups"]["train"],
                train_ids=entry["train_ids"],
                head_share=head_share(field.ranked_counts, 0.01),
                singletons=entry["train_singletons"],
                unseen_valid=entry["unseen"]["valid"] / lookups["valid"],
                unseen_test=entry["unseen"]["test"] / lookups["test"],
                row_0_test=entry["row_0"]["test"] / lookups["test"],
                groups=_groups(field.ranked_counts),
                hash_rows=hash_rows,
                used_rows=int((field.counts[1:] > 0).sum()),
                sharing=0.0 if hash_rows is None else sharing_ids(entry["train_ids"], hash_rows),
            )
        )
    return rows


LEAST_NAME = 12  # characters of a field's name that tables have room for
SPARE = ("groups", "unseen\nvalid", "row 0", "unseen\ntest", "seen once", "top 1 %")  # first to go first


def print_stats(rows: Sequence[FieldRow], console: Console) -> None:
    """The rows as a table, and the sum of the fields' rows."""
    columns: dict[str, list[str]] = {
        "rows": [f"{row.rows:,}" for row in rows],
        "top 1 %": [f"{row.head_share:.1%}" for row in rows],
        "seen once": [f"{row.singleton_share:.1%}" for row in rows],
        "unseen\nvalid": [f"{row.unseen_valid:.2%}" for row in rows],
        "unseen\ntest": [f"{row.unseen_test:.2%}" for row in rows],
        "row 0": [f"{row.row_0_test:.2%}" for row in rows],
        "groups": [str(len(row.groups)) for row in rows],
    }
    names = [f"{row.name} (bag)" if row.bag else row.name for row in rows]
    widths = {head: max(map(len, (*head.split("\n"), *cells))) for head, cells in columns.items()}
    least = min(max(map(len, names), default=0), LEAST_NAME)
    for head in SPARE:  # a narrow terminal gets fewer columns rather than no names
        if least + sum(width + 3 for width in widths.values()) <= console.width - 2:
            break
        del widths[head]
    table = Table(box=box.SIMPLE_HEAD, title=None, pad_edge=False)
    table.add_column("field", overflow="fold")
    for head in widths:
        table.add_column(head, justify="right", no_wrap=True)
    for place, name in enumerate(names):
        table.add_row(Text(name), *(columns[head][place] for head in widths))
    console.print(table)
    console.print(
        f"{_counted(len(rows), 'field')}, {_counted(sum(row.rows for row in rows), 'row')}. "
        "top 1 %: train look-ups of the most frequent 1 % of the ids; seen once: share of the ids of train; "
        "unseen: look-ups in valid and test of ids not in train; row 0: look-ups in test that read row 0; "
        "groups: of frequency",
        style="dim",
        markup=False,
        highlight=False,
    )
    hashed = [row for row in rows if row.hash_rows is not None]
    for row in hashed:
        console.print(_hashed(row), markup=False, highlight=False)
    if hashed:
        text = "of hashed fields, seen once and unseen count used rows in place of ids"
        console.print(text, style="dim", markup=False, highlight=False)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _hashed(row: FieldRow) -> str:
    """What became of the ids of a field without a vocabulary."""
    full = row.used_rows == row.hash_rows
    return (
        f"{row.name}: {'at least' if full else 'about'} {row.train_ids:,} ids of train hashed to "
        f"{row.hash_rows:,} rows, {row.used_rows:,} of them used; {row.sharing:.1%} of the ids share a row"
    )


def _groups(counts: Counts) -> tuple[Group, ...]:
    bounds = frequency_groups(counts)
    total = max(int(counts.sum()), 1)
    return tuple(
        Group(start, stop, float(counts[start:stop].sum()) / total) for start, stop in pairwise(bounds)
    )


def plot_long_tail(data: PreparedData, path: Path) -> None:
    """Draw the share of look-ups that the most frequent ids take, per field, to a PNG or SVG file.

    Raises ValueError for other suffixes.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"{path}: a picture's name must end in .png or .svg")
    # matplotlib takes half a second to import; a table should not wait for it
    from autoembed.report.front_plot import save
    from autoembed.report.stats_plot import draw_long_tail

    save(draw_long_tail(stats_of(data).fields), path)
