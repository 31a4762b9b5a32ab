"""Polish of one point of a joint search: its plan trained anew, kept as a trial beside the walked one."""

from dataclasses import dataclass
from pathlib import Path

from autoembed.export.candidate import load_candidate
from autoembed.files import write_file
from autoembed.front.point import reference_trials
from autoembed.joint.walk import retrain
from autoembed.methods.plans import numbered_fields
from autoembed.record import TrialRecord
from autoembed.search.folder import Assignment, RunFolder, read_records
from autoembed.search.inputs import open_inputs
from autoembed.search.joint_trials import (
    EXPLAINED,
    FIRST_SINGLE,
    RETRAINED,
    joint_name,
    keep_trial,
    measured_point,
    read_trunk,
)
from autoembed.search.study import JOINT, read_config

MOST_TRAININGS = 1000.0  # more is a slip of the keyboard
PAYS = 0.0002  # valid AUC gained from which retraining is said to pay: less is within the noise of a seed


@dataclass(frozen=True)
class Retrained:
    """The walked point and its plan trained anew, both of one seed."""

    walked: TrialRecord
    record: TrialRecord

    @property
    def gain(self) -> float:
        """Validation AUC by which the retrained model is better."""
        assert self.walked.valid_auc is not None and self.record.valid_auc is not None
        return self.record.valid_auc - self.walked.valid_auc

    @property
    def pays(self) -> bool:
        return self.gain > PAYS

    @property
    def verdict(self) -> str:
        cost = "" if self.record.fte is None else f" for {self.record.fte:.2f} trainings"
        return (
            f"trial {self.walked.number} as walked: valid AUC {self.walked.valid_auc:.5f}; trained anew, "
            f"trial {self.record.number}{cost}: {self.record.valid_auc:.5f} ({self.gain:+.5f}); retraining "
            f"{'pays' if self.pays else 'does not pay'}"
        )


def retrain_trial(run: Path, trial: int, trainings: float = 1.0) -> Retrained:
    """Train the plan of `trial` anew from its seed's full-precision model; the trial is added to the run.

    What was retrained before with as many trainings is read back. Raises ValueError where the trial is no
    walked point of a joint search, or `trainings` is not above 0 and at most MOST_TRAININGS; BlockingIOError
    where a search runs there.
    """
    if not 0 < trainings <= MOST_TRAININGS:
        raise ValueError(
            f"retraining takes a number of trainings above 0 and up to {MOST_TRAININGS:g}, got {trainings:g}"
        )
    config, folder = read_config(run), RunFolder(run.resolve())
    records = read_records(run)
    points = {record.number: record for record in records if _is_walked(record)}
    if trial not in points:
        raise ValueError(
            f"{run}: trial {trial} is no walked point of `search_space: joint`, and only these can be "
            f"trained anew; here {', '.join(map(str, points)) or 'there are none'}"
        )
    walked = points[trial]
    parameters = {**walked.parameters, "retrained": trainings}
    name = joint_name(parameters)
    earlier = next((r for r in records if r.candidate == name and r.seed == walked.seed), None)
    if earlier is not None:
        return Retrained(walked, earlier)
    with folder.locked():
        inputs = open_inputs(config, run)
        trunks = reference_trials(records)
        trunk = read_trunk(config, folder, inputs, walked.seed, trunks[walked.seed].number)
        packed, _ = load_candidate(folder.trial(trial), config.model, inputs.data, walked.checksums)
        point = retrain(
            *(inputs.data, inputs.spec, trunk, numbered_fields(packed.plan), packed.codes()),
            walked.parameters["budget"],
            *(config.joint.model_copy(update=_recipe(walked)), trainings),
            seed=walked.seed,
        )
        taken = [number for number in folder.numbers() if RETRAINED <= number < FIRST_SINGLE]
        number = 1 + max(taken, default=RETRAINED - 1)
        assignment = Assignment(number, name, JOINT, parameters, walked.seed, walked.role)
        explained = folder.trial(trial) / EXPLAINED  # of the plan, which is the same
        if explained.is_file():
            folder.assign(assignment)
            write_file(folder.trial(number) / EXPLAINED, [explained.read_bytes()])
        record = keep_trial(
            *(folder, inputs, records, assignment, point.packed, point.network),
            **measured_point(config, point),
            reason=f"trial {trial} trained anew",
        )
    return Retrained(walked, record)


def _is_walked(record: TrialRecord) -> bool:
    return record.method == JOINT and record.state == "complete" and "retrained" not in record.parameters


def _recipe(record: TrialRecord) -> dict[str, object]:
    return {name: value for name, value in record.parameters.items() if name != "budget"}
