from pathlib import Path

import pytest
from search_study import write_clicks


@pytest.fixture(scope="session")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small click log and its data YAML; studies and runs go beside them."""
    folder = tmp_path_factory.mktemp("clicks")
    write_clicks(folder)
    return folder
