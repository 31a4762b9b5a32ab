"""The benchmarks' records: all that was to be reached is in them, and what limits every miss."""

import importlib.util
import json
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "kernels" / "bench"
_SPEC = importlib.util.spec_from_file_location("aims", BENCH / "aims.py")
assert _SPEC is not None and _SPEC.loader is not None
aims = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(aims)


@pytest.mark.parametrize("name", ["cpu.json", "cpu_avx512.json", "gpu.json"])
def test_a_record_tells_every_aim_and_what_limits_those_that_are_missed(name: str) -> None:
    record = json.loads((BENCH / name).read_text(encoding="utf-8"))
    judged = aims.compared_on_gpu if name == "gpu.json" else aims.compared
    assert record["aims"] == judged(record["pieces"], record["ratios"])
    every = aims.GPU_AT_LEAST if name == "gpu.json" else aims.AT_LEAST | aims.AT_MOST
    assert record["aims"].keys() == every.keys()
    for figure, held in record["aims"].items():
        missed = (
            held["reached"] < held["at_least"] if "at_least" in held else held["reached"] > held["at_most"]
        )
        assert missed == ("missed_by" in held)
        assert held.get("limit") != "not known", figure
        assert not missed or held["missed_by"] >= 1


def test_a_miss_is_told_as_the_factor_that_it_lacks() -> None:
    pieces = {"update_rowwise": {"time_over": {"fp16_sr_over_nearest": 1.32}}}
    found = aims.compared(pieces, {"int8_gather_vs_fbgemm": 1.5, "interaction_vs_bmm": 3.0, "other": 1.0})
    assert found.keys() == {"fp16_sr_over_nearest", "int8_gather_vs_fbgemm", "interaction_vs_bmm"}
    assert found["int8_gather_vs_fbgemm"]["missed_by"] == 2
    assert found["fp16_sr_over_nearest"]["missed_by"] == 1.2
    assert "limit" not in found["interaction_vs_bmm"]
