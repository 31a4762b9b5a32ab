"""The record of kernels compiled ahead of time: all are there, for both architectures, without a spill."""

import ast
import json
from pathlib import Path

KERNELS = Path(__file__).parents[2] / "kernels"
RECORD = json.loads((KERNELS / "bench" / "compile_gpu.json").read_text(encoding="utf-8"))["kernels"]


def written() -> set[str]:
    """Names of the kernels in the sources."""
    found = set()
    for path in (KERNELS / "autoembed_kernels" / "gpu").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                found.add(node.name.removesuffix("_kernel"))
    return found


def test_every_kernel_was_compiled_for_both_architectures() -> None:
    assert written() == {entry["kernel"] for entry in RECORD}
    assert {(entry["kernel"], entry["sm"]) for entry in RECORD} == {
        (k, sm) for k in written() for sm in (80, 90)
    }


def test_no_kernel_spills_and_each_leaves_room_for_eight_warps() -> None:
    for entry in RECORD:
        assert entry["spill_bytes"] == 0, entry
        # 65536 registers of a multiprocessor, and at most 255 of a thread
        assert entry["registers"] * 32 * entry["warps"] * (8 // entry["warps"] or 1) <= 65536, entry
