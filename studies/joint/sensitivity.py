"""How well closed-form prices, calibrated or not, rotated or not, rank whole plans: figures per data set.

    python studies/joint/sensitivity.py frappe epinions ml1m [--prepared DIR] [--seed 1]

Trains the full-precision recipe of studies/references, prices the joint menu by one pass over train,
calibrates on 8,192 examples of valid and checks on up to 16,384 others of valid. Plans are drawn around all
kinds of prices alike. Under `loss_at_ratio` stand the measured increases of the loss of the plans that each
kind of price finds at 16x to 128x (payload), before any fine-tuning. Rows stand by frequency. Written to
sensitivity.json beside this.
"""

import argparse
import copy
import itertools
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoembed.config import load
from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData
from autoembed.joint.additivity import cheapest_plan, check_additivity, random_plans
from autoembed.joint.calibration import calibrate
from autoembed.joint.choices import allowed, menu, row_bytes
from autoembed.joint.groups import groups_of
from autoembed.joint.plan_reader import PlanReader
from autoembed.joint.prices import price
from autoembed.joint.rotation import absorb_rotation, principal_rotation
from autoembed.joint.sensitivity import measure_sensitivity
from autoembed.joint.swaps import HeldOut
from autoembed.methods.base import TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.packed import PackedTable
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import denormals_are_zero, train

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "references"))
from run import Recipe  # noqa: E402

BATCH = 8192
RATIOS = (16, 32, 64, 128)
PLANS = 30


@dataclass(frozen=True)
class Reference:
    """A trained full-precision recipe of studies/references: rows (R, D) of all fields, and the network."""

    data: PreparedData
    spec: TableSpec
    rows: torch.Tensor
    network: torch.nn.Module
    training_seconds: float


def reference(name: str, prepared: Path, seed: int) -> Reference:
    recipe = load(Recipe, HERE.parent / "references" / f"{name}.yaml")
    data = prepare(load_data_config(HERE.parent / "references" / recipe.data), prepared / name)
    stats = stats_of(data)
    spec = TableSpec(stats, recipe.model.dim, PROFILES["packed"])
    started = time.perf_counter()
    trained = train(data, stats, FullPrecision(), spec.profile, recipe.model, recipe.training, seed=seed)
    seconds = round(time.perf_counter() - started, 2)
    table = PackedTable(trained.packed, stats.first_rows)
    rows = torch.cat([table.decode(field) for field in range(len(stats.fields))])
    return Reference(data, spec, rows, trained.network.eval(), seconds)


def study(name: str, prepared: Path, seed: int) -> dict[str, Any]:
    """Figures of one data set, with and without the rotation."""
    trunk = reference(name, prepared, seed)
    data, spec, rows, network = trunk.data, trunk.spec, trunk.rows, trunk.network
    figures: dict[str, Any] = {"training_seconds": trunk.training_seconds}
    with denormals_are_zero():
        figures["plain"] = _figures(data, spec, network, rows)
        firsts = spec.stats.first_rows
        sensitivity = measure_sensitivity(network, rows, firsts, data.batches("train", BATCH))
        rotation = principal_rotation(rows, sensitivity)
        network = copy.deepcopy(network)
        if absorb_rotation(network, rotation, len(spec.stats.fields)):
            figures["rotated"] = _figures(data, spec, network, rows @ rotation)
    return figures


def _figures(data: Any, spec: TableSpec, network: torch.nn.Module, rows: torch.Tensor) -> dict[str, Any]:
    firsts = spec.stats.first_rows
    groups, choices = groups_of(spec.stats), menu(spec)
    sizes = torch.tensor(
        [[row_bytes(spec.profile, g, c) if allowed(g, c) else float("inf") for c in choices] for g in groups],
        dtype=torch.float64,
    )
    sensitivity = measure_sensitivity(network, rows, firsts, data.batches("train", BATCH))
    started = time.perf_counter()
    correlated = price(rows, sensitivity, groups, choices)
    pricing = time.perf_counter() - started
    diagonal = price(rows, sensitivity, groups, choices, correlated=False)

    def valid(first: int, last: int) -> Any:
        return itertools.islice(data.batches("valid", BATCH, shuffle_seed=1), first, last)

    held = HeldOut(network, rows, firsts, valid(0, 1))
    reader = PlanReader(rows, sensitivity, groups)
    calibration = calibrate(held, reader, choices, correlated)
    prices = {
        "diagonal": diagonal,
        "diagonal x4 zero": diagonal * torch.tensor([4.0 if c.sharing == "zero" else 1.0 for c in choices]),
        "correlated": correlated,
        "calibrated": calibration.apply(choices, correlated),
    }
    fresh = HeldOut(network, rows, firsts, valid(1, 3), max_examples=2 * BATCH)
    generator = torch.Generator().manual_seed(1)
    plans = [
        plan
        for kind in ("diagonal", "correlated", "calibrated")
        for plan in random_plans(prices[kind], sizes, PLANS // 3, generator)
    ]
    checks = {kind: check_additivity(fresh, reader, choices, p, plans) for kind, p in prices.items()}
    budget = spec.stats.rows * spec.dim * 4.0
    losses = {}
    for kind, p in prices.items():
        best = [cheapest_plan(p, sizes, budget / ratio) for ratio in RATIOS]
        found = check_additivity(fresh, reader, choices, p, best).measured
        losses[kind] = {str(ratio): round(loss, 6) for ratio, loss in zip(RATIOS, found, strict=True)}
    return {
        "groups": len(groups),
        "choices": len(choices),
        "seconds": {
            "pass": round(sensitivity.seconds, 2),
            "pricing": round(pricing, 2),
            "calibration": round(calibration.seconds, 2),
        },
        "swaps": calibration.swaps,
        "factors": {kind: round(factor, 2) for kind, factor in calibration.factors.items()},
        "exponent": round(calibration.exponent, 3),
        "log_error": [round(calibration.error_before, 3), round(calibration.error_after, 3)],
        "spearman": {kind: round(check.spearman, 4) for kind, check in checks.items()},
        "measured_over_predicted": {
            kind: round(
                statistics.median(
                    m / max(p, 1e-12) for m, p in zip(check.measured, check.predicted, strict=True)
                ),
                2,
            )
            for kind, check in checks.items()
        },
        "loss_at_ratio": losses,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=["frappe", "epinions", "ml1m"])
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "sensitivity.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    for name in arguments.names:
        figures[name] = study(name, arguments.prepared, arguments.seed)
        print(name, json.dumps(figures[name], indent=1), flush=True)
        arguments.out.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
