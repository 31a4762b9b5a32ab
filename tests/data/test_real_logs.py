"""The real click logs beside the project, where they are: the figures of their description."""

from pathlib import Path

import pytest

from autoembed.data.config import load_data_config
from autoembed.data.prepare import prepare

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "studies" / "data"
LOGS = ROOT.parent / "shared" / "data"

FACTS = {  # rows, fields, ids in train, share of positives
    "frappe": (288_609, 10, 5_379, 0.333),
    "ml1m": (739_012, 8, 13_532, 0.778),
    "epinions": (922_267, 2, 259_817, 0.738),
    "amazon_access": (32_769, 9, 13_747, 0.942),
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", list(FACTS))
def test_real_logs_have_the_described_rows_ids_and_positives(name: str, tmp_path: Path) -> None:
    if not (LOGS / f"{name}.parquet").exists():
        pytest.skip(f"the click log {name}.parquet is not beside the project")
    data = prepare(load_data_config(CONFIGS / f"{name}.yaml"), tmp_path / "out")
    splits = ("train", "valid", "test")
    rows = sum(data.rows(split) for split in splits)
    ids = sum(entry["train_ids"] for entry in data.manifest["fields"])
    positives = sum(data.positives(split) for split in splits) / rows
    assert (rows, len(data.fields), ids, round(positives, 3)) == FACTS[name]
    assert data.manifest["bad_rows"]["count"] == 0


def test_every_data_configuration_of_the_studies_is_valid() -> None:
    configs = sorted(CONFIGS.glob("*.yaml"))
    assert len(configs) == 4
    for path in configs:
        (source,) = load_data_config(path).paths
        assert Path(source).resolve() == (LOGS / f"{path.stem}.parquet").resolve()
