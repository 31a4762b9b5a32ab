"""Polish of one point of a joint search: its plan trained anew, kept as a trial beside the walked one."""

from dataclasses import dataclass, replace
from pathlib import Path

from autoembed.damage import DamagedError
from autoembed.export.candidate import load_candidate
from autoembed.files import write_file
from autoembed.front.point import Objective, reference_trials, sign
from autoembed.joint.checkpoint import settled
from autoembed.joint.walk import retrain
from autoembed.methods.plans import numbered_fields
from autoembed.record import TrialRecord
from autoembed.search.candidate import warm_up
from autoembed.search.folder import RETRAINING, Assignment, RunFolder, read_records
from autoembed.search.inputs import open_inputs
from autoembed.search.joint_trials import (
    EXPLAINED,
    FIRST_SINGLE,
    ORDER,
    RETRAINED,
    joint_name,
    keep_trial,
    measured_point,
    read_trunk,
)
from autoembed.search.study import JOINT, read_config

MOST_TRAININGS = 1000.0  # more is a slip of the keyboard
# AUC gained on the valid split, from which retraining is said to pay: less is within the noise of a seed;
# log loss is taken alike
PAYS = 0.0002


@dataclass(frozen=True)
class Retrained:
    """A point and its plan trained anew, both of one seed, compared by the study's objective.

    The point is a walked one, or was trained anew before for another number of trainings.
    """

    walked: TrialRecord
    record: TrialRecord
    objective: Objective = "auc"

    @property
    def gain(self) -> float:
        """How much better the retrained model is on the valid split: AUC gained, or log loss saved."""
        walked, anew = (self._measured(record) for record in (self.walked, self.record))
        return sign(self.objective) * (anew - walked)

    def _measured(self, record: TrialRecord) -> float:
        value = record.valid_auc if self.objective == "auc" else record.valid_logloss
        assert value is not None, "a walked point is measured"
        return value

    @property
    def pays(self) -> bool:
        return self.gain > PAYS

    @property
    def verdict(self) -> str:
        cost = "" if self.record.fte is None else f" for {self.record.fte:.2f} trainings"
        walked, anew = (self._measured(record) for record in (self.walked, self.record))
        name = {"auc": "AUC", "logloss": "log loss"}[self.objective]
        how = "as walked" if _is_walked(self.walked) else "as trained anew before"
        return (
            f"trial {self.walked.number} {how}: valid {name} {walked:.5f}; trained anew, "
            f"trial {self.record.number}{cost}: {anew:.5f} ({anew - walked:+.5f}); retraining "
            f"{'pays' if self.pays else 'does not pay'}"
        )


def retrain_trial(run: Path, trial: int, trainings: float = 1.0) -> Retrained:
    """Train the plan of `trial` anew from its seed's full-precision model; the trial is added to the run.

    Where that does not pay it is no point of the front, and only its cost counts. What was retrained before
    with as many trainings is read back. Raises ValueError where the trial is no point of a joint search, or
    `trainings` is not above 0 and at most MOST_TRAININGS; BlockingIOError where a search runs there.
    """
    if not 0 < trainings <= MOST_TRAININGS:
        raise ValueError(
            f"retraining takes a number of trainings above 0 and up to {MOST_TRAININGS:g}, got {trainings:g}"
        )
    config, folder = read_config(run), RunFolder(run.resolve())
    records = read_records(run)
    points = {r.number: r for r in records if r.method == JOINT and r.state == "complete"}
    if trial not in points:
        raise ValueError(
            f"{run}: trial {trial} is no point of `search_space: joint`, and only these can be "
            f"trained anew; here {', '.join(map(str, points)) or 'there are none'}"
        )
    asked = points[trial]
    walked = next(r for r in points.values() if _is_walked(r) and _is_of_one_plan(r, asked))
    parameters = {**walked.parameters, "retrained": trainings}
    name = joint_name(parameters)
    earlier = next((r for r in records if r.candidate == name and r.seed == walked.seed), None)
    if earlier is not None:
        return Retrained(walked if earlier == asked else asked, earlier, config.objective)
    warm_up()
    with folder.locked():
        folder.log(RETRAINING, number=trial)
        inputs = open_inputs(config, run)
        trunks = reference_trials(records)
        trunk, inputs = read_trunk(config, folder, inputs, walked.seed, trunks[walked.seed].number)
        _check_order(folder, walked, trunks[walked.seed])
        packed, _ = load_candidate(folder.trial(walked.number), config.model, inputs.data, walked.checksums)
        recipe = _recipe(walked)
        if config.joint.teacher == "auto" and "teacher" not in recipe:
            recipe["teacher"] = settled(folder.path / "walks" / str(walked.seed), config.joint).teacher
        point = retrain(
            *(inputs.data, inputs.spec, trunk, numbered_fields(packed.plan), packed.codes()),
            walked.parameters["budget"],
            *(config.joint.model_copy(update=recipe), trainings),
            seed=walked.seed,
        )
        taken = [number for number in folder.numbers() if RETRAINED <= number < FIRST_SINGLE]
        number = 1 + max(taken, default=RETRAINED - 1)
        measured = measured_point(config, point)
        anew = replace(asked, valid_auc=point.valid.auc, valid_logloss=point.valid.logloss)
        role = walked.role if Retrained(asked, anew, config.objective).pays else "aside"
        assignment = Assignment(number, name, JOINT, parameters, walked.seed, role)
        explained = folder.trial(walked.number) / EXPLAINED  # of the plan, which is the same
        if explained.is_file():
            folder.assign(assignment)
            write_file(folder.trial(number) / EXPLAINED, [explained.read_bytes()])
        record = keep_trial(
            *(folder, inputs, records, assignment, point.packed, point.network),
            **measured,
            reason=f"trial {walked.number} trained anew",
        )
    return Retrained(asked, record, config.objective)


def _check_order(folder: RunFolder, walked: TrialRecord, trunk: TrialRecord) -> None:
    """Raise DamagedError where the trunk was trained again since, so that its rows stand in another order."""
    if walked.checksums.get(ORDER) != trunk.checksums.get(ORDER):
        raise DamagedError(
            f"{folder.trial(trunk.number)}: the rows of this trunk stand in another order than those of "
            f"trial {walked.number}; copy the one that it was walked from back, or remove that trial's "
            f"record.json and walks/{walked.seed}, and run the search again"
        )


def _is_walked(record: TrialRecord) -> bool:
    return record.method == JOINT and record.state == "complete" and "retrained" not in record.parameters


def _is_of_one_plan(one: TrialRecord, other: TrialRecord) -> bool:
    """Whether two points, walked or trained anew, are of one budget, recipe and seed."""
    without = [{k: v for k, v in r.parameters.items() if k != "retrained"} for r in (one, other)]
    return one.seed == other.seed and without[0] == without[1]


def _recipe(record: TrialRecord) -> dict[str, object]:
    return {name: value for name, value in record.parameters.items() if name != "budget"}
