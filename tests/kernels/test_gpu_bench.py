"""The GPU benchmark: every candidate runs in Triton's interpreter; without a GPU it refuses to measure."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCH = Path(__file__).parents[2] / "kernels" / "bench"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu")


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("piece", ["copy", "gather", "pool", "update", "interaction", "step"])
def test_every_candidate_runs_and_every_ratio_names_two(bench: ModuleType, piece: str) -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    work = bench.Workload(rows=(5, 60, 3), batch=6, batches=2, device=DEVICE)
    made = bench.PIECES[piece](work)
    for call in made.candidates.values():
        for batch in range(work.batches):
            call(batch)
    assert set(made.bytes_moved) <= set(made.candidates)
    assert {name for pair in made.ratios.values() for name in pair} <= set(made.candidates)


def test_the_record_becomes_tables(bench: ModuleType) -> None:
    record = {
        **{"device": "a GPU", "torch": "2", "cuda": "12", "triton": "3", "copy_gb_per_s": 1000.0},
        "pieces": {"copy": {"copy": {"median_us": 1.5, "p25_us": 1.0, "p75_us": 2.0, "gb_per_s": 1000.0}}},
        "ratios": {"one_vs_other": 1.25},
        "aims": {
            "a": {"reached": 0.5, "at_least": 0.6, "missed_by": 1.2, "limit": "this"},
            "b": {"reached": 0.7, "at_least": 0.6},
        },
    }
    text = bench.as_markdown(json.loads(json.dumps(record)))
    assert "| copy | 1.5 | 1.0 | 2.0 | 1000.0 |  |  |" in text and "- one_vs_other: 1.25" in text
    assert "## Missed, 1 of 2 aims\n\n- a: 0.5 of at least 0.6, missed by a factor of 1.2: this\n" in text


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU to measure")
def test_without_a_gpu_it_refuses_and_writes_nothing(tmp_path: Path) -> None:
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, BENCH / "gpu.py", "--out", tmp_path / "gpu.json"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.strip().startswith("torch sees no CUDA GPU here")
    assert not list(tmp_path.iterdir())
