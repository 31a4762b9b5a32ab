"""Single methods at exactly the budgets, and with the seeds, of the joint studies.

    python studies/joint/singles.py epinions --methods mpe_budget pep --out singles
    python studies/joint/run.py --add singles
    python studies/joint/singles.py frappe --methods uniform pep robe --together --out together
    python studies/joint/run.py --add together --named fitted

Every method trains the settings of its preset that the byte model fits to a budget (`KNOB: fit`), or all
bit-widths of a preset that has nothing else, under the recipe of the joint study. `run.py --add` takes their
figures over where they validate better than what results.csv holds of that method at that budget. With
--together one study tries all methods, so that the further seeds go to whichever is best at a budget; named
`uniform (fitted)` and so on, its picks are compared with the full precision that was trained beside them.
"""

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from autoembed.config import read_yaml
from autoembed.search.driver import run_study
from autoembed.search.events import Event, TrialEnded
from autoembed.search.study import load_study
from autoembed.space import fitted_part, preset_path

HERE = Path(__file__).parent


def settings(method: str) -> list[dict[str, Any]]:
    """The entry of a search space for `method`: no search, settings only."""
    (entry,) = read_yaml(preset_path(method))["methods"]
    if set(entry["knobs"]) == {"bits"}:
        return [{"method": method, "baselines": [{"bits": bits} for bits in entry["knobs"]["bits"]]}]
    return list(fitted_part(method)["methods"])


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
    parser.add_argument("--together", action="store_true", help="one study of all methods, not one each")
    parser.add_argument("--out", type=Path, default=Path("singles"))
    options = parser.parse_args()
    joint = load_study(HERE / f"{options.data}.yaml")
    groups = [options.methods] if options.together else [[method] for method in options.methods]
    for methods in groups:
        space = {"methods": [entry for method in methods for entry in settings(method)]}
        changed = {"search_space": space, "trials": 0, "workers": 1}
        run = options.out / options.data
        run_study(
            joint.model_copy(update=changed),
            run if options.together else run / methods[0],
            progress=tell,
        )


if __name__ == "__main__":
    main()
