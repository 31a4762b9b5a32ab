"""A walked front per data set and seed, with a plain planner: what the training side reaches, and costs.

    python studies/joint/walk.py frappe --seeds 1 2
    python studies/joint/walk.py ml1m --set rate=0.5 --set teacher=0.5 --zero 4

Recipes are those of studies/references. Groups stand at geometric ranks, prices come from one pass over the
validation split, the price of reading row 0 is multiplied by --zero, and hulls are merged greedily. Costs are
in trainings of the trunk (fte), by steps and by processor seconds. Prepared data is looked for in --prepared.
"""

import argparse
import csv
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import itertools

import torch
import yaml
from torch import Tensor, nn

from autoembed.config import Section, load
from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.joint.config import JointConfig
from autoembed.joint.prices import price
from autoembed.joint.sensitivity import measure_sensitivity
from autoembed.joint.trunk import Trunk, train_trunk
from autoembed.joint.walk import Point, walk
from autoembed.methods.base import TableSpec
from autoembed.methods.plans import Codes, Fields, fields_bytes, stored_segment, uniform_fields
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES, FieldPlan, Segment, Sharing
from autoembed.stats import stats_of
from autoembed.training_config import TrainingConfig

REFERENCES = Path(__file__).parents[1] / "references"
RATIOS = (2, 4, 8, 12, 16, 24, 32, 64, 128, 256, 512)
COLUMNS: tuple[str, ...] = (
    "data",
    "seed",
    "settings",
    "ratio",
    "budget_bytes",
    "total_bytes",
    "valid_auc",
    "test_auc",
)
COLUMNS = (*COLUMNS, "test_loss_of_auc", "untuned_valid_auc", "fine_tuned", "steps", "fte_steps", "fte_cpu")


class Recipe(Section):
    """A file of studies/references."""

    data: str
    model: ModelConfig
    training: TrainingConfig


@dataclass(frozen=True)
class Group:
    field: int
    start: int
    stop: int


@dataclass(frozen=True)
class Choice:
    sharing: str
    ratio: float
    dim: int
    bits: int
    parts: tuple[tuple[int, str], ...] = ()
    code_bits: int = 0

    @property
    def precision(self) -> str:
        return f"int{self.bits}" if self.bits <= 8 else "fp32" if self.bits == 32 else "fp16"


class PlainPlanner:
    """Prices at the weights as they are, and merges the convex hulls of all groups."""

    def __init__(self, spec: TableSpec, data: Any, zero: float, cap: float, priced: str) -> None:
        self.spec, self.data, self.zero, self.priced = spec, data, zero, priced
        self.groups = groups_of(spec, cap)
        dims = [d for d in (spec.dim // 4, spec.dim // 2, spec.dim) if d]
        self.choices = [Choice("zero", 0.0, spec.dim, 1)]
        self.choices += [Choice("own", 1.0, dim, bits) for dim in dims for bits in (1, 2, 3, 4, 6, 8, 16)]
        self.choices.append(Choice("own", 1.0, spec.dim, 32))
        self.seconds = 0.0

    def __call__(self, rows: Tensor, network: nn.Module, budgets: Sequence[int]) -> list[Fields]:
        started = time.process_time()
        first = self.spec.stats.first_rows
        found = measure_sensitivity(network, rows, first, self.data.batches(self.priced, 8192))
        prices = price(rows, found, self.groups, self.choices, correlated=False)
        prices[:, 0] *= self.zero
        plans = [self._solve(prices, budget) for budget in budgets[:1]]
        self.seconds += time.process_time() - started
        return plans

    def codes(self, rows: Tensor, fields: Fields) -> Codes:
        return {}  # its menu has no codebooks

    def metrics(self) -> None:
        """Rows are rounded to nearest."""

    def _solve(self, prices: Tensor, budget: int) -> Fields:
        sizes = [[self._bytes(g, c) for c in self.choices] for g in self.groups]
        taken, moves = [], []
        for number, group in enumerate(self.groups):
            allowed = [c for c in range(len(self.choices)) if c or group.start]
            hull = _hull([(sizes[number][c], float(prices[number][c]), c) for c in allowed])
            taken.append(hull[0][2])
            for (size, loss, _), (more, less, choice) in itertools.pairwise(hull):
                moves.append(((loss - less) / (more - size), number, more - size, choice))
        moves.sort(key=lambda move: -move[0])
        room = budget - fields_bytes(self.spec, self._fields(taken)) - 64  # the header's digits
        stuck: set[int] = set()
        for _, number, more, choice in moves:
            if number not in stuck and more + 4 + 20 <= room:
                room -= more + (24 if taken[number] == 0 else 0)  # a scale, and the entry of a run cut in two
                taken[number] = choice
            else:
                stuck.add(number)
        fields = self._fields(taken)
        assert fields_bytes(self.spec, fields) <= budget, (fields_bytes(self.spec, fields), budget)
        return fields

    def _bytes(self, group: Group, choice: Choice) -> int:
        if choice.sharing == "zero":
            return 0
        return (group.stop - group.start) * self.spec.profile.row_bytes(choice.dim, choice.precision)

    def _fields(self, taken: Sequence[int]) -> Fields:
        segments: list[list[Segment]] = [[] for _ in self.spec.stats.fields]
        scale = 0
        for group, number in zip(self.groups, taken, strict=True):
            choice, before = self.choices[number], segments[group.field]
            if choice.sharing == "zero":
                start = group.start
                if before and before[-1].sharing is Sharing.OOV:
                    start = before.pop().start
                before.append(Segment(start, group.stop, Sharing.OOV))
                continue
            before.append(stored_segment(group.start, group.stop, choice.dim, choice.bits, scale))
            scale += choice.bits <= 8
        return tuple(
            FieldPlan(field.name, field.rows, self.spec.dim, tuple(found))
            for field, found in zip(self.spec.stats.fields, segments, strict=True)
        )


def groups_of(spec: TableSpec, cap: float) -> list[Group]:
    """Row 0, then ranks that double, none above `cap` of all rows."""
    most = max(1, int(cap * spec.stats.rows))
    groups = []
    for number, field in enumerate(spec.stats.fields):
        bounds, size = [0, 1], 8
        while bounds[-1] < field.rows:
            bounds.append(min(field.rows, bounds[-1] + min(size, most)))
            size *= 2
        groups += [Group(number, a, b) for a, b in itertools.pairwise(bounds) if b > a]
    return [g for g in groups if g.stop <= spec.stats.fields[g.field].rows]


def _hull(points: list[tuple[int, float, int]]) -> list[tuple[int, float, int]]:
    """Lower convex hull of (bytes, loss, choice), bytes rising and loss falling."""
    hull: list[tuple[int, float, int]] = []
    for point in sorted(points):
        if hull and point[1] >= hull[-1][1]:
            continue
        if hull and point[0] == hull[-1][0]:
            hull.pop()
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _slope(a: tuple[int, float, int], b: tuple[int, float, int]) -> float:
    return (a[1] - b[1]) / (b[0] - a[0])


def rows_of(name: str, seed: int, settings: str, trunk: Trunk, points: list[Point]) -> list[dict[str, Any]]:
    full = trunk.rows.numel() * 4
    return [
        dict(
            data=name,
            seed=seed,
            settings=settings,
            ratio=round(full / p.bytes, 2),
            budget_bytes=p.budget_bytes,
            total_bytes=p.bytes,
            valid_auc=round(p.valid.auc, 6),
            test_auc=round(p.test.auc, 6),
            test_loss_of_auc=round(trunk.test.auc - p.test.auc, 6),
            untuned_valid_auc=round(p.untuned.auc, 6),
            fine_tuned=p.fine_tuned,
            steps=p.steps,
            fte_steps=round(p.steps / trunk.ledger.steps, 4),
            fte_cpu=round(p.cpu_seconds / trunk.ledger.cpu_seconds, 4),
        )
        for p in points
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--set", action="append", default=[], help="a knob of the joint section, name=value")
    parser.add_argument("--zero", type=float, default=4.0)
    parser.add_argument("--cap", type=float, default=0.02)
    parser.add_argument("--priced", default="valid")
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--out", type=Path, help="append to this CSV file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = load(Recipe, REFERENCES / f"{given.data}.yaml")
    data = prepare(load_data_config(REFERENCES / recipe.data), given.prepared / given.data)
    stats = stats_of(data)
    config = JointConfig(**{k: yaml.safe_load(v) for k, v in (item.split("=") for item in given.set)})
    settings = " ".join((*given.set, f"zero={given.zero:g}", f"cap={given.cap:g}", given.priced))
    for seed in given.seeds:
        trunk = train_trunk(data, stats, recipe.model, recipe.training, seed=seed)
        spec = TableSpec(stats, recipe.model.dim, PROFILES["packed"], recipe.training.initial_std)
        full = fields_bytes(spec, uniform_fields(spec, 32))
        print(
            f"{given.data} seed {seed} [{settings}]  trunk valid {trunk.valid.auc:.5f} test "
            f"{trunk.test.auc:.5f}, {trunk.ledger.steps} steps, {trunk.ledger.cpu_seconds:.0f} s",
            flush=True,
        )
        planner = PlainPlanner(spec, data, given.zero, given.cap, given.priced)
        budgets = [int(full / ratio) for ratio in given.ratios]

        def show(p: Point, trunk: Trunk = trunk, full: int = full) -> None:
            print(
                f"  {full / p.bytes:6.1f}x  valid {p.valid.auc - trunk.valid.auc:+.5f} "
                f"(untuned {p.untuned.auc - trunk.valid.auc:+.5f})  test {p.test.auc - trunk.test.auc:+.5f}  "
                f"{p.steps} steps, {p.cpu_seconds / trunk.ledger.cpu_seconds:.2f} fte",
                flush=True,
            )

        points = walk(data, spec, recipe.model, trunk, budgets, planner, config, seed=seed, progress=show)
        steps = sum(p.steps for p in points) / trunk.ledger.steps
        seconds = sum(p.cpu_seconds for p in points) / trunk.ledger.cpu_seconds
        pricing = planner.seconds / trunk.ledger.cpu_seconds
        print(f"  front: 1 + {steps:.2f} fte in steps, 1 + {seconds:.2f} in seconds, {pricing:.2f} pricing")
        if given.out:
            _append(given.out, rows_of(given.data, seed, settings, trunk, points))


def _append(path: Path, rows: list[dict[str, Any]]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
