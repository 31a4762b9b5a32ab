"""Single methods at exactly the budgets, and with the seeds, of the joint studies.

    python studies/joint/singles.py epinions --methods mpe_budget pep --out singles
    python studies/joint/run.py --add singles

Every method trains the settings of its preset that the byte model fits to a budget (`KNOB: fit`), under the
recipe of the joint study. `run.py --add` takes their figures over where they validate better than what
results.csv holds of that method at that budget.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from autoembed.search.driver import run_study
from autoembed.search.events import Event, TrialEnded
from autoembed.search.study import load_study
from autoembed.space import fitted_part

HERE = Path(__file__).parent


def tell(event: Event) -> None:
    if isinstance(event, TrialEnded):
        record = event.record
        what = f"{record.candidate} seed {record.seed}: {record.total_bytes:,} B"
        print(f"{what} test AUC {record.test_auc}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=("epinions", "frappe", "ml1m"))
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("singles"))
    options = parser.parse_args()
    joint = load_study(HERE / f"{options.data}.yaml")
    for method in options.methods:
        changed = {"search_space": fitted_part(method), "trials": 0, "workers": 1}
        run_study(joint.model_copy(update=changed), options.out / options.data / method, progress=tell)


if __name__ == "__main__":
    main()
