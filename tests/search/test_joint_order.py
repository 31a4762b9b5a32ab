"""A joint search whose rows stand in a learned order: its files, its exported models, and damage to them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from search_study import make_study

from autoembed.config import ConfigError
from autoembed.damage import DamagedError, checksums_of
from autoembed.data.prepared import PreparedData
from autoembed.data.row_order import RowOrder
from autoembed.data.vocabulary import Vocabulary
from autoembed.export.candidate import load_candidate
from autoembed.joint.config import JointConfig
from autoembed.joint.planner import JointPlanner
from autoembed.methods.plans import stored_plan
from autoembed.record import TrialRecord
from autoembed.run import export_pick, pick_trial
from autoembed.runtime import Artifact, load
from autoembed.runtime.manifest import FILES
from autoembed.search.driver import run_study
from autoembed.search.folder import FailedIn, RunFolder
from autoembed.search.inputs import open_inputs
from autoembed.search.joint_seed import trunk_assignment, walk_seed
from autoembed.search.joint_trials import ORDER, RETRAINED, read_trunk
from autoembed.search.retrain import retrain_trial
from autoembed.search.study import StudyConfig

WALK = "walks/0/walk.json"
PRUNED = 2  # the first seed's point under the smaller budget: some users read row 0, as in the other's

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Walked:
    """`run` must not be changed; copies of it go beside it, where they find its data."""

    run: Path
    config: StudyConfig
    records: list[TrialRecord]
    log: pa.Table

    @property
    def data(self) -> PreparedData:
        return open_inputs(self.config, self.run).data

    @property
    def test_columns(self) -> dict[str, pa.ChunkedArray]:
        test = self.log.filter(pc.equal(self.log["part"], "test"))
        return {name: test[name] for name in test.column_names}


def raw_log(rows: int = 1800) -> pa.Table:
    """Clicks on more users (text) and items (numbers) than an order leaves in place; bags may be empty."""
    random = np.random.default_rng(3)

    def ids(most: int, size: int) -> np.ndarray:
        often = random.random(size) < 0.3
        return np.where(often, most ** random.random(size), random.integers(1, most, size)).astype(int)

    user, item = ids(700, rows), ids(420, rows)
    tags = [ids(25, number % 3) for number in range(rows)]
    logits = 2 * np.sin(user) + 2 * np.cos(3 * item) + np.array([np.sin(5 * held).sum() for held in tags])
    return pa.table(
        {
            "click": (random.random(rows) < 1 / (1 + np.exp(-logits))).astype(int),
            "user": pa.array([f"user {i}" for i in user]),
            "item": pa.array(item),
            "tags": pa.array([held.tolist() for held in tags]),
            "part": ["train"] * (rows * 3 // 5) + ["valid"] * (rows // 5) + ["test"] * (rows // 5),
        }
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Walked]:
    """Searches in one folder, by the order of their rows and the number of seeds."""
    folder, log = tmp_path_factory.mktemp("ordered"), raw_log()
    pq.write_table(log, folder / "clicks.parquet")
    content = {
        "path": "clicks.parquet",
        "label": "click",
        "categorical": {"user": None, "item": None, "tags": {"bag": True, "pooling": "mean"}},
        "split": {"column": "part"},
    }
    (folder / "clicks.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def search(order: str, seeds: int) -> Walked:
        config = make_study(
            folder,
            search_space="joint",
            budgets=["1/2", "1/24"],
            model={"name": "dnn", "dim": 8, "hidden": [8]},
            training={"epochs": 2, "batch_size": 128, "learning_rate": 0.03},
            seeds=seeds,
            joint={"fine_tune": 0.5, "order": order},
        )
        run = folder / order
        return Walked(run, config, run_study(config, run), log)

    return search


@pytest.fixture(scope="module")
def walked(searched: Callable[[str, int], Walked]) -> Walked:
    return searched("learned", 2)


@pytest.fixture
def copied(walked: Walked, tmp_path: Path) -> Walked:
    """A copy of the run that a test may change."""
    run = walked.run.parent / tmp_path.name
    shutil.copytree(walked.run, run)
    return replace(walked, run=run)


def trial(run: Path, number: int) -> Path:
    return RunFolder(run).trial(number)


def order_of(walked: Walked, number: int) -> RowOrder:
    return RowOrder.load(trial(walked.run, number) / ORDER, [field.rows for field in walked.data.fields])


def export(walked: Walked, number: int, out: Path) -> Artifact:
    pick = pick_trial(walked.run, trial=number)
    assert pick.trial == number
    verified = export_pick(walked.run, pick, out)
    assert verified.largest_difference is not None and verified.largest_difference <= 1e-5
    return load(out)


def check_measured(artifact: Artifact, record: TrialRecord, walked: Walked) -> None:
    """Prepared data and raw columns give the metrics of the record."""
    for found in (artifact.evaluate(walked.data), artifact.evaluate_raw([walked.test_columns])):
        # products of matrices round otherwise in batches of another size
        expected = pytest.approx((record.test_auc, record.test_logloss), abs=1e-6)
        assert (found.auc, found.logloss) == expected
    valid = artifact.evaluate(walked.data, "valid")
    assert (valid.auc, valid.logloss) == pytest.approx((record.valid_auc, record.valid_logloss), abs=1e-6)


def walk_again(run: Path) -> None:
    """What is left of the first seed, in this process."""
    walk_seed(run, trunk_assignment(0, 0), lambda event: None)


def state_of(run: Path) -> dict[str, object]:
    """Records but for their times, and the bytes of all that belongs to trials."""
    records = [replace(r, seconds=0.0, cost_seconds=0.0, fte=None) for r in RunFolder(run).records()]
    files = {str(path.relative_to(run)): path.read_bytes() for path in run.glob("trials/*/*.safetensors")}
    return {"records": records, **files}


def test_the_trunk_and_every_point_keep_the_order_of_their_seed(walked: Walked) -> None:
    assert [(r.number, r.seed, r.state) for r in walked.records] == [
        *((0, 0, "complete"), (1, 0, "complete"), (2, 0, "complete")),
        *((3, 1, "complete"), (4, 1, "complete"), (5, 1, "complete")),
    ]
    for record in walked.records:
        file = trial(walked.run, record.number) / ORDER
        assert file.samefile(walked.run / "walks" / str(record.seed) / ORDER), "of one seed it is kept once"
        assert record.checksums[ORDER]["bytes"] == file.stat().st_size
        assert record.checksums[ORDER] == walked.records[3 * record.seed].checksums[ORDER]
    assert walked.records[0].checksums[ORDER] != walked.records[3].checksums[ORDER]
    for number in (0, 3):
        moved = [int((rows != np.arange(len(rows))).sum()) for rows in order_of(walked, number).rows]
        assert min(moved[:2]) > 100, "it is no order by frequency"


@pytest.mark.parametrize("number", [0, 1, PRUNED, 5])
def test_an_exported_model_gives_the_recorded_metrics_and_lists_ids_in_the_learned_order(
    walked: Walked, tmp_path: Path, number: int
) -> None:
    record, order = walked.records[number], order_of(walked, number)
    artifact = export(walked, number, tmp_path / "model")
    check_measured(artifact, record, walked)
    data = walked.data
    in_order = data.reordered(order)
    assert artifact.evaluate(in_order) == artifact.evaluate(data)
    about = artifact.manifest["data"]
    assert (about["fingerprint"], about["prepared_fingerprint"]) == (in_order.fingerprint, data.fingerprint)
    kept_rows = artifact.plan.kept_rows
    assert (kept_rows[0] < data.fields[0].rows) == (number in (PRUNED, 5))
    listed, full_bytes = 0, 0
    for field, (rows, kept) in enumerate(zip(order.rows, kept_rows, strict=True)):
        ours, by_frequency = artifact.fields[field].vocabulary, data.vocabulary(field)
        assert isinstance(ours, Vocabulary) and isinstance(by_frequency, Vocabulary)
        known = by_frequency.values.to_pylist()
        assert ours.values.to_pylist() == [known[row - 1] for row in rows[1:kept]]
        listed, full_bytes = listed + ours.nbytes, full_bytes + by_frequency.nbytes
    size = artifact.manifest["bytes"]
    assert (size["vocabulary"], size["vocabulary_unpruned"]) == (listed, full_bytes)
    assert record.vocabulary_bytes == listed
    assert (listed < full_bytes) == (number in (PRUNED, 5))


def test_by_frequency_nothing_is_kept_or_exported_beside_what_was_before(
    walked: Walked, searched: Callable[[str, int], Walked], tmp_path: Path
) -> None:
    plain = searched("frequency", 1)
    assert [record.state for record in plain.records] == ["complete"] * 3
    assert not any(ORDER in record.checksums for record in plain.records)
    assert not list(plain.run.rglob(ORDER))
    artifact = export(plain, 1, tmp_path / "model")
    check_measured(artifact, plain.records[1], plain)
    assert "prepared_fingerprint" not in artifact.manifest["data"]
    assert artifact.manifest["data"]["fingerprint"] == plain.data.fingerprint
    for field, ours in enumerate(artifact.fields):
        expected = plain.data.vocabulary(field)
        assert isinstance(ours.vocabulary, Vocabulary) and isinstance(expected, Vocabulary)
        assert ours.vocabulary.values.equals(expected.values)
    with pytest.raises(ValueError, match="rows stand for other ids there"):
        artifact.evaluate(plain.data.reordered(order_of(walked, 0)))
    # the order changes neither the trained trunk nor its bytes, nor which budgets there are
    for name in ("valid_auc", "test_auc", "bytes", "vocabulary_bytes"):
        assert getattr(plain.records[0], name) == getattr(walked.records[0], name)
    assert [r.parameters for r in plain.records] == [r.parameters for r in walked.records[:3]]


def swap_two_rows(path: Path) -> None:
    """Another order, of as many bytes."""
    rows = load_file(path)
    rows["0"][[1, 2]] = rows["0"][[2, 1]]
    save_file(rows, path)


def remove_walk(run: Path) -> None:
    """All but the trunk, whose order is left in its trial alone."""
    for number in (1, 2):
        shutil.rmtree(trial(run, number))
    for path in (run / "walks" / "0").iterdir():
        if path.name != "trunk.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_trunk(run: Path) -> None:
    """What lies beside it says another order, which no trial has."""
    shutil.rmtree(trial(run, 0))
    swap_two_rows(run / "walks" / "0" / ORDER)


def remove_record(run: Path) -> None:
    """Of a point, beside another order than its own."""
    (trial(run, PRUNED) / "record.json").unlink()
    swap_two_rows(run / "walks" / "0" / ORDER)


@pytest.mark.parametrize(
    ("remove", "made"),
    [
        pytest.param(remove_record, [PRUNED], id="a record beside another order"),
        pytest.param(lambda run: (trial(run, PRUNED) / "record.json").unlink(), [PRUNED], id="a record"),
        pytest.param(lambda run: shutil.rmtree(trial(run, 1)), [1], id="a point"),
        pytest.param(remove_trunk, [0], id="the trunk"),
        pytest.param(remove_walk, [1, 2], id="all but the trunk"),
    ],
)
def test_what_was_removed_comes_back_to_the_byte_with_its_order(
    copied: Walked, remove: Callable[[Path], None], made: list[int]
) -> None:
    before = state_of(copied.run)
    remove(copied.run)
    assert state_of(copied.run) != before
    walk_again(copied.run)
    assert state_of(copied.run) == before
    for number in made:
        assert (trial(copied.run, number) / ORDER).samefile(copied.run / "walks" / "0" / ORDER)


def test_plans_are_made_of_the_trunk_and_of_data_in_its_order(walked: Walked) -> None:
    order, plain = order_of(walked, 0), open_inputs(walked.config, walked.run)
    trunk, inputs = read_trunk(walked.config, RunFolder(walked.run), plain, 0, 0)
    assert inputs.data.fingerprint == plain.data.reordered(order).fingerprint
    kept = json.loads((walked.run / "walks" / "0" / "trunk.json").read_text())
    assert trunk.basis_seconds == kept["basis_seconds"] > 0
    for number, rows in enumerate(order.rows):
        counts = plain.data.counts(number)[rows].tolist()
        for stats in (inputs.stats, inputs.spec.stats):
            assert stats.fields[number].counts.tolist() == counts
    budgets = [record.parameters["budget"] for record in walked.records[1:3]]
    planner = JointPlanner(inputs.data, inputs.spec, trunk, 0)
    fields = planner(trunk.rows, trunk.network, budgets)[0]
    packed, _ = load_candidate(trial(walked.run, 1), walked.config.model, inputs.data, {})
    assert stored_plan(inputs.spec.profile, fields) == packed.plan


def test_an_export_needs_the_order_of_its_trial_alone(walked: Walked, copied: Walked, tmp_path: Path) -> None:
    (copied.run / "walks" / "0" / ORDER).unlink()
    for number in (0, 1, 3, 4, 5):
        (trial(copied.run, number) / ORDER).unlink()
    export(walked, PRUNED, tmp_path / "before")
    export(copied, PRUNED, tmp_path / "after")
    for name in (*FILES, "manifest.json"):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


DAMAGES = [
    pytest.param(Path.unlink, "missing", id="missing"),
    pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-4]), "cut off or altered", id="cut off"),
    pytest.param(swap_two_rows, "altered since it was written", id="altered"),
]


@pytest.mark.parametrize(("damage", "told"), DAMAGES)
def test_a_damaged_order_is_named_with_what_to_do_which_undoes_it(
    copied: Walked, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    before = state_of(copied.run)
    point, trunk = (trial(copied.run, number) for number in (PRUNED, 0))
    damage(point / ORDER)
    remedy = "copy it back, or remove {}/record.json and run again what made it"
    with pytest.raises(DamagedError, match=f"^{point / ORDER}: {told}.*{remedy.format(point)}$"):
        export_pick(copied.run, pick_trial(copied.run, trial=PRUNED), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    damage(trunk / ORDER)
    message = f"^{trunk / ORDER}: {told}.*{remedy.format(trunk)}$"
    with pytest.raises(DamagedError, match=message):
        retrain_trial(copied.run, 1, trainings=0.5)
    (point / "record.json").unlink()
    with pytest.raises(FailedIn) as failed:  # the point is made from the trunk
        walk_again(copied.run)
    with pytest.raises(DamagedError, match=message):
        raise failed.value.__cause__ or failed.value
    (trunk / "record.json").unlink()
    walk_again(copied.run)
    assert state_of(copied.run) == before
    export(copied, PRUNED, tmp_path / "model")


@pytest.mark.parametrize("links", [True, False])
def test_a_plan_trained_anew_has_the_order_of_the_walked_one(
    copied: Walked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(path: Path, target: Path) -> None:
        raise OSError("no hard links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr("autoembed.search.retrain.PAYS", -1.0)
    record = retrain_trial(copied.run, PRUNED, trainings=0.5).record
    assert record.number == RETRAINED
    order = trial(copied.run, RETRAINED) / ORDER
    assert order.samefile(copied.run / "walks" / "0" / ORDER) == links
    assert order.read_bytes() == (trial(copied.run, PRUNED) / ORDER).read_bytes()
    assert record.checksums[ORDER] == copied.records[PRUNED].checksums[ORDER]
    artifact = export(copied, RETRAINED, tmp_path / "model")
    check_measured(artifact, record, copied)
    assert artifact.plan.kept_rows[0] < copied.data.fields[0].rows


def test_a_plan_is_not_trained_anew_on_rows_in_another_order(copied: Walked) -> None:
    """As where its trunk was trained again since, elsewhere."""
    folder = RunFolder(copied.run)
    swap_two_rows(trial(copied.run, 0) / ORDER)
    record = copied.records[0]
    folder.finish(replace(record, checksums=record.checksums | checksums_of(trial(copied.run, 0), [ORDER])))
    with pytest.raises(DamagedError, match="in another order than those of trial 2; copy the one"):
        retrain_trial(copied.run, PRUNED, trainings=0.5)


def test_another_order_than_the_runs_is_refused(walked: Walked) -> None:
    identity = json.loads((walked.run / "identity.json").read_text())
    assert identity["joint.order"] == "learned"
    other = walked.config.model_copy(update={"joint": JointConfig(fine_tune=0.5, order="frequency")})
    with pytest.raises(ConfigError, match=r"joint\.order: 'learned' -> 'frequency'"):
        run_study(other, walked.run)


def test_a_run_from_before_there_were_orders_goes_on_by_frequency(
    searched: Callable[[str, int], Walked],
) -> None:
    plain = searched("frequency", 1)
    run = plain.run.parent / "earlier"
    shutil.copytree(plain.run, run)
    before = state_of(run)
    identity, standing = (json.loads((run / name).read_text()) for name in ("identity.json", WALK))
    del identity["joint.order"], standing["about"]["rows"], standing["about"]["joint"]["order"]
    (run / "identity.json").write_text(json.dumps(identity))
    (run / WALK).write_text(json.dumps(standing))
    (trial(run, 2) / "record.json").unlink()
    learned = plain.config.model_copy(update={"joint": JointConfig(fine_tune=0.5)})
    with pytest.raises(ConfigError, match=r"joint\.order: 'frequency' -> 'learned'"):
        run_study(learned, run)
    run_study(plain.config, run)
    assert state_of(run) == before
