"""LMA against plain hashing and ROBE: with a pool of the same size, and in a file of the same size.

    python studies/lma/run.py                                    all data sets, both sizes, seeds 1 2 3
    python studies/lma/run.py epinions --ratios 0.0625 --seeds 1

Every run trains the tuned full-precision recipe of `studies/references/` with another method for its tables.
`pool`: all methods get the bytes of LMA's file without its signatures. `file`: hashing and ROBE get the bytes
of LMA's file with them. The best epoch is chosen on the validation split, test figures are only reported, and
no method is tuned. Finished runs are kept in `results.csv` beside this file and not run again. Prepared data
goes to `prepared/` in the working directory, or to --prepared.
"""

import argparse
import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from autoembed.config import Section, load
from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare
from autoembed.data.prepared import PreparedData, open_prepared
from autoembed.methods.base import Method, TableSpec
from autoembed.methods.full_precision import FullPrecision
from autoembed.methods.hashing import Hashing
from autoembed.methods.lma import Lma
from autoembed.methods.robe import Robe
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES, Sharing
from autoembed.stats import Stats, stats_of
from autoembed.training import TrainingConfig, train

HERE = Path(__file__).parent
DATA = ("epinions", "frappe", "ml1m")
RATIOS = (1 / 16, 1 / 4)  # values of LMA's pool per value of full precision
COLUMNS = ("data", "ratio", "equal", "method", "seed", "total_bytes", "signature_bytes")
FIGURES = ("valid_auc", "test_auc", "test_logloss", "cpu_seconds")


class Recipe(Section):
    """A tuned full-precision recipe of studies/references."""

    data: str
    model: ModelConfig
    training: TrainingConfig


def candidates(ratio: float, spec: TableSpec) -> Iterator[tuple[str, str, Method]]:
    """What is made equal, a label, and the method, for one size of the pool."""
    semantic = Lma(ratio=ratio)
    file_bytes = semantic.footprint(spec).high_bytes
    pool_bytes = file_bytes - signature_bytes(semantic, spec)
    yield "pool", "lma, examples", semantic
    for equal, limit in (("pool", pool_bytes), ("file", file_bytes)):
        yield equal, "hashing", fitted(lambda r: Hashing(ratio=r), spec, limit)
    yield "pool", "lma, partners", Lma(ratio=ratio, over="partners")
    for equal, limit in (("pool", pool_bytes), ("file", file_bytes)):
        yield equal, "robe, blocks of 1", fitted(lambda r: Robe(ratio=r, block=1), spec, limit)


def signature_bytes(method: Lma, spec: TableSpec) -> int:
    segments = method.plan(spec).segments()
    return sum(8 * s.rows for _, s in segments if s.sharing is Sharing.SIGNATURE_POOL)


def fitted(of_ratio: Callable[[float], Method], spec: TableSpec, limit: int) -> Method:
    """The method of the largest ratio whose file takes at most `limit` bytes, by bisection."""
    low, high = 1e-4, 1.0
    if of_ratio(high).footprint(spec).high_bytes <= limit:
        return of_ratio(high)
    for _ in range(40):
        middle = (low + high) / 2
        fits = of_ratio(middle).footprint(spec).high_bytes <= limit
        low, high = (middle, high) if fits else (low, middle)
    return of_ratio(low)


def opened(recipe: Recipe, name: str, prepared: Path) -> PreparedData:
    if (prepared / name).is_dir():
        return open_prepared(prepared / name)
    return prepare(load_data_config(HERE.parent / "references" / recipe.data), prepared / name)


def run_one(
    recipe: Recipe, data: PreparedData, stats: Stats, spec: TableSpec, method: Method, seed: int
) -> dict[str, float]:
    trained = train(data, stats, method, spec.profile, recipe.model, recipe.training, seed=seed)
    return {
        "total_bytes": trained.bytes.total,
        "signature_bytes": signature_bytes(method, spec) if isinstance(method, Lma) else 0,
        "valid_auc": round(trained.valid.auc, 5),
        "test_auc": round(trained.test.auc, 5),
        "test_logloss": round(trained.test.logloss, 5),
        "cpu_seconds": round(trained.ledger.cpu_seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", default=DATA, choices=[*DATA, []])
    parser.add_argument("--ratios", nargs="*", type=float, default=RATIOS)
    parser.add_argument("--seeds", nargs="*", type=int, default=(1, 2, 3))
    parser.add_argument("--prepared", type=Path, default=Path("prepared"))
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if options.out.is_file():
        with options.out.open() as file:
            done = {tuple(row[c] for c in COLUMNS[:5]) for row in csv.DictReader(file)}
    for seed in options.seeds:
        for name in options.data:
            recipe = load(Recipe, HERE.parent / "references" / f"{name}.yaml")
            data = opened(recipe, name, options.prepared)
            stats = stats_of(data)
            spec = TableSpec(stats, recipe.model.dim, PROFILES["packed"], recipe.training.initial_std)
            wanted: list[tuple[str, str, str, Method]] = [("1", "", "full precision", FullPrecision())]
            for ratio in options.ratios:
                wanted += [(f"{ratio:g}", *one) for one in candidates(ratio, spec)]
            for ratio_text, equal, label, method in wanted:
                key = (name, ratio_text, equal, label, str(seed))
                if key in done:
                    continue
                row = dict(zip(COLUMNS, key, strict=False))
                figures = run_one(recipe, data, stats, spec, method, seed)
                new = not options.out.is_file()
                with options.out.open("a", newline="") as file:
                    writer = csv.DictWriter(file, (*COLUMNS, *FIGURES), lineterminator="\n")
                    if new:
                        writer.writeheader()
                    writer.writerow({**row, **figures})
                print(*key, figures, flush=True)


if __name__ == "__main__":
    main()
