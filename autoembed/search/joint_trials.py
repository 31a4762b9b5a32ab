"""Trials of a joint search in its run folder: their numbers, names and records."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from autoembed.config import ConfigError
from autoembed.damage import check_checksums, checksums_of, read_json, readable
from autoembed.data.row_order import RowOrder
from autoembed.export.candidate import load_candidate, save_candidate
from autoembed.files import write_file
from autoembed.joint.point import Point
from autoembed.joint.trunk import MOST_TRIED, Trunk
from autoembed.ledger import Ledger
from autoembed.metrics import Metrics
from autoembed.packed import Packed, PackedTable
from autoembed.plan import plan_bytes
from autoembed.record import TrialRecord
from autoembed.search.folder import Assignment, RunFolder
from autoembed.search.inputs import Inputs
from autoembed.search.study import JOINT, StudyConfig
from autoembed.training_config import TrainingConfig

FIRST_SINGLE = 10_000  # trials of single methods have numbers from here on where a joint search comes first
TUNING = 4_000  # trainings that tuned the first seed's trunk begin there, MOST_TRIED of each seed
RECIPES = 5_000
RETRAINED = 7_000
ORDER = "order.safetensors"  # in the trials of a seed whose rows do not stand by frequency
EXPLAINED = "explained.json"  # in a point's trial folder: what every field and group got, and why


def check_numbers(config: StudyConfig, budgets: int) -> None:
    """Raises ConfigError where trials of so many budgets would need numbers that others have."""
    seeds, others = config.seeds, config.joint.recipes - 1
    tuned = 0 if config.joint.tune == "off" else seeds
    for asked, trials, room, fewer in (
        (f"{seeds} seeds of {budgets} budgets", seeds * (1 + budgets), TUNING, "seeds or budgets"),
        (f"trunks of {tuned} seeds to tune", tuned * MOST_TRIED, RECIPES - TUNING, "seeds"),
        (
            *(f"{others} more recipes of {budgets} budgets", others * budgets, RETRAINED - RECIPES),
            "recipes or budgets",
        ),
    ):
        if trials > room:
            raise ConfigError(
                f"{asked} need {trials:,} trials, a joint search has numbers for {room:,}; take fewer {fewer}"
            )


def joint_name(parameters: dict[str, Any]) -> str:
    """`joint(budget=65536, rate=0.1)`: a point by its budget and what its recipe changes."""
    return f"{JOINT}({', '.join(f'{name}={value}' for name, value in parameters.items())})"


def keep_trial(
    folder: RunFolder,
    inputs: Inputs,
    records: Sequence[TrialRecord],
    assignment: Assignment,
    packed: Packed,
    network: torch.nn.Module,
    *,
    valid: Metrics,
    test: Metrics,
    **measured: Any,
) -> TrialRecord:
    """Files first, then the record: with it the trial is finished. `records` are those before it.

    The rows of `packed` stand as those of `inputs`, whose order is written into the seed's folder where it is
    not there yet.
    """
    path = folder.trial(assignment.number)
    if not (path / "assignment.json").exists():
        folder.assign(assignment)
    checksums = save_candidate(path, packed, network)
    if inputs.data.order is not None:
        _link(_kept_order(folder, assignment.seed, inputs.data.order), path / ORDER)
        checksums |= checksums_of(path, [ORDER])
    size = plan_bytes(packed.plan)
    record = TrialRecord(
        number=assignment.number,
        candidate=assignment.candidate,
        method=assignment.method,
        parameters=assignment.parameters,
        seed=assignment.seed,
        role=assignment.role,
        state="complete",
        bytes={**asdict(size), "total": size.total},
        vocabulary_bytes=sum(
            inputs.data.vocabulary(field).truncated(rows).nbytes
            for field, rows in enumerate(packed.plan.kept_rows)
        ),
        valid_auc=valid.auc,
        valid_logloss=valid.logloss,
        test_auc=test.auc,
        test_logloss=test.logloss,
        checksums=checksums,
        **measured,
    )
    earlier = (r for r in records if r.number != record.number)  # a trunk may be trained again
    reference = next((r for r in earlier if r.role == "reference"), record)
    record = replace(record, fte=record.cost / reference.cost if reference.cost else None)
    folder.finish(record)
    folder.log("complete", number=record.number, reason=record.reason)
    return record


def measured_point(config: StudyConfig, point: Point) -> dict[str, Any]:
    """What a record tells of a point, beside its files."""
    on_cpu = not torch.cuda.is_available()
    return {
        "valid": point.valid,
        "test": point.test,
        "seconds": point.seconds,
        "cost_seconds": point.cpu_seconds if on_cpu else point.seconds,
        "samples": point.steps * config.training.batch_size,
        "steps": point.steps,
        "peak_table_bytes": point.table_bytes,
    }


def read_recipe(path: Path) -> dict[str, Any]:
    """How a recipe's walk ended: its `parameters`, and whether it was `stopped` before its last point.

    Raises DamagedError naming the file and what to do.
    """
    return read_json(path, ("parameters", "stopped"), f"copy it back, or remove {path} and start again")


def trunk_file(folder: RunFolder, seed: int) -> Path:
    """What the trunk of a seed was trained with; its rows and network are in its trial."""
    return folder.path / "walks" / str(seed) / "trunk.json"


def ordered(inputs: Inputs, folder: RunFolder, record: TrialRecord) -> Inputs:
    """Inputs whose rows stand as those of the trial's tables.

    Raises DamagedError naming the file and what to do where the order is missing or altered.
    """
    path = folder.trial(record.number)
    if ORDER not in record.checksums:
        return inputs
    remedy = f"copy it back, or remove {path / 'record.json'} and run again what made it"
    check_checksums(path, {ORDER: record.checksums[ORDER]}, remedy)
    with readable(path / ORDER, remedy):
        order = RowOrder.load(path / ORDER, [field.rows for field in inputs.data.fields])
    return inputs.reordered(order)


def _kept_order(folder: RunFolder, seed: int, order: RowOrder) -> Path:
    """The file of a seed's order, written unless it is there, whole, and holds this one."""
    path = folder.path / "walks" / str(seed) / ORDER
    try:
        if RowOrder.load(path, [len(rows) for rows in order.rows]).is_same(order):
            return path
    except (OSError, ValueError, SafetensorError):
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    order.save(path)
    return path


def _link(source: Path, target: Path) -> None:
    """The same file under another name where the file system allows that, a copy elsewhere."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        write_file(target, [source.read_bytes()])


def read_trunk(
    config: StudyConfig, folder: RunFolder, inputs: Inputs, seed: int, number: int
) -> tuple[Trunk, Inputs]:
    """The trunk of a seed, kept as trial `number`, without its history, and inputs in the order of its rows.

    Raises DamagedError naming the file and what to do where one is missing or altered.
    """
    record = folder.record(number)
    checksums = {} if record is None else record.checksums
    path = trunk_file(folder, seed)
    remedy = f"copy it back, or remove {folder.trial(number) / 'record.json'} and run the search again"
    facts = read_json(path, ("training", "valid", "test", "ledger"), remedy)
    inputs = inputs if record is None else ordered(inputs, folder, record)
    packed, network = load_candidate(folder.trial(number), config.model, inputs.data, checksums)
    table = PackedTable(packed)
    rows = torch.cat([table.decode(field) for field in range(len(packed.plan.fields))])
    with readable(path, remedy):
        trunk = Trunk(
            rows,
            network,
            TrainingConfig(**facts["training"]),
            Metrics(**facts["valid"]),
            Metrics(**facts["test"]),
            Ledger(**facts["ledger"]),
            (),
            (),
            *(
                facts.get(name, 0.0) for name in ("basis_seconds", "basis_cpu_seconds")
            ),  # earlier ones had none
        )
    return trunk, inputs
