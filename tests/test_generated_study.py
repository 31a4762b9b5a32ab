"""The building blocks of studies/generated, on a log of two thousand rows."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from autoembed.methods import make_method
from autoembed.methods.base import TableSpec
from autoembed.models import ModelConfig
from autoembed.plan import PROFILES
from autoembed.stats import stats_of
from autoembed.training import TrainingConfig

STUDY = Path(__file__).parents[1] / "studies" / "generated"
PARTS = ("payload", "scales", "offsets", "projections", "index", "header")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(scope="module")
def study() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDY))
        for module in ("joint", "memory", "settings", "summary"):
            patch.delitem(sys.modules, module, raising=False)
        yield runpy.run_path(str(STUDY / "run.py"))
        for module in ("joint", "memory", "settings", "summary"):
            patch.delitem(sys.modules, module, raising=False)


@pytest.fixture(scope="module")
def data(study: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return study["prepared"](2000, tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module")
def recipe(study: Any) -> Any:
    training = TrainingConfig(batch_size=256, optimizer="adagrad", learning_rate=0.01, epochs=1)
    return study["Recipe"](model=ModelConfig(name="dlrm", dim=16, hidden=(8,)), training=training)


def test_every_free_knob_fits_its_budget_and_leaves_little_of_it(study: Any, data: Any) -> None:
    stats = stats_of(data)
    roomy = [s for s in study["SETTINGS"] if s.free and s.budget == "1/3.9"]
    assert len(roomy) == 6
    for setting in roomy:
        knobs = setting.fitted(stats, 16)
        spec = TableSpec(stats, 16, PROFILES[setting.profile])
        budget = setting.budget_bytes(stats, 16)
        size = make_method(setting.method, knobs).footprint(spec).high_bytes
        assert size <= budget
        # whole rows and whole numbers of collisions leave gaps where fields are as small as here
        assert setting.free == "collisions" or size > 0.9 * budget or knobs[setting.free] == 1.0


def test_a_measured_row_holds_the_file_by_part_and_the_memory_of_its_tables(
    study: Any, data: Any, recipe: Any
) -> None:
    rows = [
        study["measured"](data, recipe, study["Setting"](method, knobs), seed=1)
        for method, knobs in (("full_precision", {}), ("robe", {"ratio": 0.1}))
    ]
    full, pool = rows
    for row in rows:
        assert row["total_bytes"] == sum(row[part] for part in PARTS)
        assert 0 < row["private_before"] <= row["private_training"] <= row["private_peak"]
        assert row["private_peak"] < row["resident_peak"]
    # weights and Adagrad's state of the same size
    assert full["table_bytes"] == pytest.approx(2 * full["total_bytes"], rel=0.01)
    assert pool["table_bytes"] == pytest.approx(full["table_bytes"] / 10, rel=0.01)


def test_the_table_pairs_losses_with_full_precision_by_seed(study: Any) -> None:
    def row(method: str, seed: str, auc: str) -> dict[str, str]:
        numbers = dict.fromkeys(study["COLUMNS"], "1000000")
        names = {"method": method, "budget": "", "knobs": "", "profile": "packed", "optimizer": "adagrad"}
        return {**numbers, **names, "seed": seed, "test_auc": auc, "test_logloss": "0.5"}

    full = [row("full_precision", "1", "0.70"), row("full_precision", "2", "0.80")]
    table = study["summary"]([*full, row("uniform", "1", "0.69"), row("uniform", "2", "0.79")])
    last = table.splitlines()[-1]
    # .01 with either seed, though the seeds lie .1 apart
    assert "| 0.7400 ± 0.6353 | 0.0100 ± 0.0000 |" in last
