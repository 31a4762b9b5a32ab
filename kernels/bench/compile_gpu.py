"""Compile the Triton kernels ahead of time, without a GPU, and report what they would need there.

    python kernels/bench/compile_gpu.py          writes compile_gpu.json beside this file

For every kernel, variant and architecture: registers per thread, bytes spilled to local memory, and bytes of
shared memory, as the assembler reports them. Any spill is an error.
"""

import json
import re
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from autoembed_kernels.gpu.look_up_packed import VALUES, look_up_kernel

ARCHITECTURES = (80, 90)
POINTERS = {
    **{"words": "*i32", "rows": "*i64", "out": "*fp32", "count": "i32", "segments": "i32", "width": "i32"},
    **dict.fromkeys(("start", "field_start", "field_segment", "field", "buckets"), "*i64"),
    **dict.fromkeys(("base", "row_bytes", "dim", "bits", "front", "offset"), "*i64"),
    **dict.fromkeys(("reads_row_0", "hashed", "kind"), "*u8"),
    **dict.fromkeys(("shift", "scale", "offsets"), "*fp32"),
}
OFF = dict.fromkeys(("ANY_AWAY", "ANY_HASHED", "ROW_SCALES", "ROW_BIASES", "ANY_FLOAT", "ANY_OFFSET"), False)
VARIANTS = {
    "codes, one scale per segment": OFF,
    "codes, scale and bias in the row": {**OFF, "ROW_SCALES": True, "ROW_BIASES": True},
    "everything in one plan": {**dict.fromkeys(OFF, True), "ROW_BIASES": False, "ROW_SCALES": False},
}


def report(architecture: int, columns: int, variant: dict[str, bool]) -> dict[str, Any]:
    constants = {"STEPS": 7, "BLOCK": VALUES // columns, "COLUMNS": columns, **variant}
    signature = {name: POINTERS.get(name, "constexpr") for name in look_up_kernel.arg_names}
    source = ASTSource(look_up_kernel, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [tools / "cuobjdump", "-res-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    return {
        "registers": found["REG"],
        "spill_bytes": found["LOCAL"] + found["STACK"],
        "shared_bytes": compiled.metadata.shared,
        "warps": compiled.metadata.num_warps,
    }


def main() -> None:
    kernels = [
        {
            "kernel": "look_up_packed",
            "variant": name,
            "columns": columns,
            "sm": sm,
            **report(sm, columns, flags),
        }
        for sm in ARCHITECTURES
        for columns in (16, 64)
        for name, flags in VARIANTS.items()
    ]
    for entry in kernels:
        print(entry)
    content = {"triton": version("triton"), "values_per_program": VALUES, "kernels": kernels}
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if any(entry["spill_bytes"] for entry in kernels):
        raise SystemExit("a kernel spills registers: make its block smaller")


if __name__ == "__main__":
    main()
