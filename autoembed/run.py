"""A finished or running search as its user sees it: its front, its picks, its exported models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoembed.budget import parse_budget
from autoembed.config import ConfigError
from autoembed.damage import DamagedError, read_json
from autoembed.evaluate import EVALUATION_BATCH
from autoembed.export.artifact import LARGEST_DIFFERENCE, Reference, Verified, verify_artifact, write_artifact
from autoembed.export.candidate import load_candidate
from autoembed.front import FrontRecord, Pick, choose, front_record
from autoembed.front.point import reference_trials, trial_fte
from autoembed.front.record import AUC_DROPS
from autoembed.packed import PackedTable
from autoembed.record import TrialRecord
from autoembed.runtime import ArtifactError
from autoembed.search.folder import RunFolder, read_records
from autoembed.search.inputs import open_inputs
from autoembed.search.joint_trials import EXPLAINED, ordered
from autoembed.search.limits import limits_of
from autoembed.search.study import StudyConfig, read_config


def run_front(run: Path) -> FrontRecord:
    """The front of all trials that have finished so far. Raises ValueError where `run` holds no search."""
    config, records = read_config(run), read_records(run)
    budgets = config.budgets_bytes(_full_bytes(config, run, records))
    drops = set(AUC_DROPS)
    if config.is_joint and config.joint.max_drop is not None and config.objective == "auc":
        drops.add(config.joint.max_drop)
    return front_record(records, budgets, config.objective, sorted(drops))


def _full_bytes(config: StudyConfig, run: Path, records: Sequence[TrialRecord]) -> int:
    """Bytes of the exported full-precision tables: from the data, or where it is gone from the reference."""
    try:
        return limits_of(config, open_inputs(config, run).spec).full_bytes
    except ConfigError:
        known = next((record.total_bytes for record in reference_trials(records).values()), 0)
        if not known:
            raise
        return known


def pick_trial(
    run: Path,
    *,
    budget: str | None = None,
    knee: bool = False,
    max_auc_drop: float | None = None,
    trial: int | None = None,
) -> Pick:
    """The trial for exactly one wish; a budget is a size or a ratio such as 1/16 of full precision.

    Raises PickError where the wish cannot be met, naming the nearest point that would.
    """
    budget_bytes = None
    if budget is not None:
        budget_bytes = parse_budget(budget, _full_bytes(read_config(run), run, read_records(run)))
    return choose(
        run_front(run), budget_bytes=budget_bytes, knee=knee, max_auc_drop=max_auc_drop, trial=trial
    )


def explain_trial(run: Path, trial: int) -> tuple[dict[str, Any], int]:
    """What a point of a joint search was given and why, and the bytes of full precision.

    `reason` is that of its record: how its weights came about. Raises ValueError where the trial is no point
    of a joint search, naming those that are, DamagedError where what explains it cannot be read.
    """
    config = read_config(run)
    path = RunFolder(run).trial(trial) / EXPLAINED
    if not path.is_file():
        known = sorted(int(p.parent.name) for p in (run / "trials").glob(f"*/{EXPLAINED}"))
        raise ValueError(
            f"{run}: trial {trial} has no explanation, only points of `search_space: joint` have one; "
            f"here {', '.join(map(str, known)) or 'there are none'}"
        )
    content, records = _read_explained(path), read_records(run)
    made = next((record.reason for record in records if record.number == trial), "")
    return content | {"reason": made}, _full_bytes(config, run, records)


def walked_plans(run: Path) -> tuple[list[dict[str, Any]], list[DamagedError]]:
    """What explains the points of the first seed's walk with the study's own recipe, largest budget first.

    Those that cannot be read are left out; the second list says which and why.
    """
    config = read_config(run)
    records = [r for r in read_records(run) if r.seed == config.seed and set(r.parameters) == {"budget"}]
    files = [RunFolder(run).trial(record.number) / EXPLAINED for record in records]
    plans, damaged = [], []
    for path in files:
        try:
            # earlier versions did not write the dimension
            plans += [{"dim": config.model.dim, **_read_explained(path)}] if path.is_file() else []
        except DamagedError as error:
            damaged.append(error)
    return sorted(plans, key=lambda plan: -int(plan["budget_bytes"])), damaged


def _read_explained(path: Path) -> dict[str, Any]:
    remedy = (
        f"copy it back, or remove the folder {path.parent} and run the search again to have it made again"
    )
    return read_json(path, ("budget_bytes", "loss", "fields"), remedy)


def export_pick(run: Path, pick: Pick, out: Path, *, overwrite: bool = False) -> Verified:
    """Write the picked trial as an artifact, reload it, and check size and predictions on the test split.

    Raises ValueError where `out` exists, ArtifactError where the reloaded model differs, or where packing
    had changed what the trained candidate predicts.
    """
    config, folder = read_config(run), RunFolder(run)
    records = read_records(run)
    record = next(record for record in records if record.number == pick.trial)
    data = ordered(open_inputs(config, run), folder, record).data
    if record.packing_difference is not None and record.packing_difference > LARGEST_DIFFERENCE:
        raise ArtifactError(
            f"{run}: packing trial {record.number}, {record.candidate}, changed its predictions by up to "
            f"{record.packing_difference:g}, allowed are {LARGEST_DIFFERENCE:g}; export another trial"
        )
    packed, network = load_candidate(folder.trial(record.number), config.model, data, record.checksums)
    write_artifact(
        out,
        packed=packed,
        network=network,
        model=config.model,
        data=data,
        metrics=_metrics(record),
        provenance=_provenance(config, record, pick, trial_fte(record, reference_trials(records))),
        overwrite=overwrite,
    )
    return verify_artifact(
        out,
        against=Reference(network.eval(), PackedTable(packed).eval()),
        batches=data.batches("test", EVALUATION_BATCH),
    )


def _metrics(record: TrialRecord) -> dict[str, dict[str, float]]:
    found = {
        "valid": {"auc": record.valid_auc, "logloss": record.valid_logloss},
        "test": {"auc": record.test_auc, "logloss": record.test_logloss},
    }
    return {
        split: {name: value for name, value in values.items() if value is not None}
        for split, values in found.items()
    }


def _provenance(config: StudyConfig, record: TrialRecord, pick: Pick, fte: float | None) -> dict[str, object]:
    return {
        "candidate": record.candidate,
        "method": record.method,
        "parameters": record.parameters,
        "seed": record.seed,
        "trial": record.number,
        "picked": pick.reason,
        "training": config.training.model_dump(mode="json"),
        "seconds": record.seconds,
        "samples": record.samples,
        "steps": record.steps,
        "full_training_equivalents": fte,
        "peak_table_bytes": record.peak_table_bytes,
        "packing_difference": record.packing_difference,
    }
