from pathlib import Path

import pytest
from search_study import write_clicks


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small click log and its data YAML; studies and runs go beside them."""
    folder = tmp_path_factory.mktemp("clicks")
    write_clicks(folder)
    return folder


@pytest.fixture(autouse=True)
def no_power_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests kill processes and never the machine: files need not reach the disk, which takes most time."""
    monkeypatch.setattr("os.fsync", lambda number: None)
