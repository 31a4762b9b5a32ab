"""What README tells a new user to type works, in that order, on a log with the columns it names."""

import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command

README = Path(__file__).parent.parent / "README.md"
ROWS = 2500


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def write_logs(folder: Path) -> None:
    """Two days of clicks with the columns of README's logs.yaml; the user and the item decide."""
    random = np.random.default_rng(3)
    users = (40 * random.random(ROWS) ** 2).astype(int)
    items = (60 * random.random(ROWS) ** 2).astype(int)
    taste = random.normal(0, 1, (40, 60))
    clicks = (random.random(ROWS) < 1 / (1 + np.exp(-2 * taste[users, items]))).astype(int)
    table = pa.table(
        {
            "click": clicks,
            "user": [f"u{user}" for user in users],
            "item": [f"i{item}" for item in items],
            "last_items": [[f"i{item}" for item in random.integers(0, 60, n)] for n in users % 4],
            "price": random.exponential(10, ROWS),
            "age": random.integers(18, 80, ROWS),
        }
    )
    folder.mkdir()
    for day in range(2):
        pq.write_table(table.slice(day * ROWS // 2, ROWS // 2), folder / f"day_{day}.parquet")


@pytest.mark.slow
def test_every_command_of_the_readme_works_on_ones_own_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda number: None)
    write_logs(tmp_path / "logs")
    logs, study = code_blocks("yaml")
    Path("logs.yaml").write_text(logs)
    # the study of the README with fewer trials and a budget that suits a log of 2500 rows
    assert "trials: 40" in study and "8MiB" in study
    Path("study.yaml").write_text(study.replace("trials: 40", "trials: 2").replace("8MiB", "6KiB"))
    commands = [
        shlex.split(line, comments=True)
        for block in code_blocks("sh")
        for line in block.replace("8MiB", "6KiB").splitlines()
        if line.startswith("autoembed ")
    ]
    assert [command[1] for command in commands] == [
        *("prepare", "stats", "plan", "search", "front", "plot", "export", "evaluate")
    ]
    for command in commands:
        assert run_command(monkeypatch, *command[1:]) == 0, command
    printed = capsys.readouterr().out
    assert "tables file equals the byte model" in printed
    assert Path("runs/mine/front.png").stat().st_size > 10_000
    assert Path("tail.png").exists()

    scope: dict[str, object] = {}
    exec(code_blocks("python")[0], scope)
    clicks = scope["clicks"]
    assert clicks.shape == (1,) and 0 < float(clicks[0]) < 1  # type: ignore[attr-defined, index]
