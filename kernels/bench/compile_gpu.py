"""Compile the Triton kernels ahead of time, without a GPU, and report what they would need there.

    python kernels/bench/compile_gpu.py          writes compile_gpu.json beside this file

For every kernel, variant and architecture: registers per thread, bytes spilled to local memory, and bytes of
shared memory, as the assembler reports them. Any spill is an error.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from autoembed_kernels.gpu import (
    bitpack,
    cache_probe,
    chunk_look_up,
    chunk_step,
    dedupe,
    gather_packed,
    look_up_packed,
    look_up_shared,
    lsq,
    pair_products,
    philox,
    row_update,
    stochastic_round,
)
from autoembed_kernels.row_update import OPTIMIZERS

ARCHITECTURES = (80, 90)


@dataclass(frozen=True)
class Case:
    """A kernel with the types of its arguments, in their order, and its constants."""

    kernel: Any
    variant: str
    types: str
    constants: dict[str, Any] = field(default_factory=dict)
    warps: int = 4


def look_ups() -> Iterator[Case]:
    off = dict.fromkeys(
        ("ANY_AWAY", "ANY_HASHED", "ROW_SCALES", "ROW_BIASES", "ANY_FLOAT", "ANY_OFFSET"), False
    )
    variants = {
        "codes, one scale per segment": off,
        "codes, scale and bias in the row": {**off, "ROW_SCALES": True, "ROW_BIASES": True},
        "everything in one plan": {**dict.fromkeys(off, True), "ROW_BIASES": False, "ROW_SCALES": False},
    }
    types = "*i32 *i64 *fp32 i32" + " *i64" * 5 + " *u8 *u8" + " *i64" * 4
    types += " *u8 *i64 *fp32 *fp32 *i64 *fp32 i32 i32"
    for columns in (16, 64):
        for name, flags in variants.items():
            variant = f"{name}, {columns} columns"
            sizes = {"BLOCK": gather_packed.VALUES // columns, "COLUMNS": columns}
            steps = {"STEPS": 7, **sizes, **flags}
            yield Case(look_up_packed.look_up_kernel, variant, types, steps)
            of_segments = {key: flag for key, flag in flags.items() if key not in ("ANY_AWAY", "ANY_HASHED")}
            gather_types = "*i32 *i64 *i64 *fp32 i32" + " *i64" * 4 + " *u8 *i64 *fp32 *fp32 *i64 *fp32 i32"
            yield Case(gather_packed.gather_kernel, variant, gather_types, {**sizes, **of_segments})


def random_numbers() -> Iterator[Case]:
    for columns in (16, 64):
        sizes = {"BLOCK": philox.VALUES // columns, "COLUMNS": columns}
        yield Case(philox.row_words_kernel, f"{columns} columns", "*i64 *i64 *i64 i32 i32", sizes)
    block = {"BLOCK": stochastic_round.BLOCK}
    for name, half in (("fp16", True), ("bf16", False)):
        types = f"*fp32 *i64 *{name} i32"
        yield Case(stochastic_round.stochastic_round_kernel, name, types, {"HALF": half, **block})
    types = "*fp32 *fp32 *i64 *i8 i32 i32 fp32 fp32"
    yield Case(stochastic_round.stochastic_codes_kernel, "int8", types, block)


def packing() -> Iterator[Case]:
    for bits in (3, 8):
        constants = {"BITS": bits, "BLOCK": bitpack.BLOCK}
        for kernel in (bitpack.pack_bits_kernel, bitpack.unpack_bits_kernel):
            yield Case(kernel, f"{bits} bits", "*u8 *u8 i32 i32 i32", constants)


def pairs() -> Iterator[Case]:
    for vectors, dim in ((27, 16), (27, 64), (64, 128)):
        rows, columns = pair_products.padded(vectors, dim)
        sizes = {"VECTORS": rows, "TERMS": pair_products.TERMS}
        name, warps = f"{vectors} vectors of {dim}", pair_products.warps
        kernel = pair_products.pair_products_kernel
        yield Case(kernel, name, "*fp32 *fp32 i32 i32 i32", sizes, warps(rows, rows))
        kernel = pair_products.pair_gradient_kernel
        sizes = {**sizes, "COLUMNS": columns}
        yield Case(kernel, name, "*fp32 *fp32 *fp32 i32 i32 i32", sizes, warps(rows, columns))


def quantization() -> Iterator[Case]:
    for dim in (16, 64):
        block, columns = lsq.block_and_columns(dim)
        tile = {"HAS_OFFSET": True, "BLOCK": block, "COLUMNS": columns}
        of_rows = {"HAS_WHICH": True, **tile}
        name = f"a step for each row, {dim} columns"
        yield Case(lsq.fake_quantize_kernel, name, "*fp32 *fp32 *fp32 *fp32 *i64 *fp32 i32 i32", of_rows)
        types = "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *i64 *fp32 *fp32 *fp32 i32 i32"
        yield Case(lsq.fake_quantize_gradient_kernel, name, types, of_rows)
        # no row numbers and no offset
        alone = {"HAS_WHICH": False, **tile, "HAS_OFFSET": False, "which": None, "offset": None}
        name = f"one step, {dim} columns"
        yield Case(lsq.fake_quantize_kernel, name, "*fp32 " * 4 + "i32 i32", alone)
        alone = {**alone, "d_offsets": None}
        yield Case(lsq.fake_quantize_gradient_kernel, name, "*fp32 " * 7 + "i32 i32", alone)
        mixed = {"WIDTHS": 6, **tile}
        name = f"6 widths, {dim} columns"
        yield Case(lsq.mix_quantized_kernel, name, "*fp32 " * 6 + "i32 i32", mixed)
        types = "*fp32 " * 10 + "i32 i32 *fp32"
        yield Case(lsq.mix_quantized_gradient_kernel, name, types, mixed)


def updates() -> Iterator[Case]:
    for dim in (16, 64):
        sizes = {"CHUNK": dedupe.CHUNK, "COLUMNS": dim}
        types = "*fp32 *i64 *i64 *fp32 i32 i32 i32"
        warps = max(1, min(8, dedupe.CHUNK * dim // 512))
        yield Case(dedupe.chunk_sums_kernel, f"{dim} columns", types, sizes, warps)
        sizes = {"BLOCK": dedupe.VALUES // dim, "COLUMNS": dim}
        types = "*fp32 *i64 *i64 *fp32 *fp32 i32 i32 i32"
        yield Case(dedupe.sum_repeats_kernel, f"{dim} columns", types, sizes)
        for optimizer in OPTIMIZERS if dim == 16 else ("rowwise_adagrad",):
            for stored, name in enumerate(("fp32", "fp16", "bf16", "i8")):
                types = {
                    **{"weight": f"*{name}", "rows": "*i64", "gradient": "*fp32", "moment": "*fp32"},
                    **{"square": "*fp32", "touches": "*i32", "steps": "*fp16", "numbers": "*fp64"},
                    **{"chance": "*i64", "order": "*i64", "starts": "*i64", "chunk_sums": "*fp32"},
                    **dict.fromkeys(("distinct", "lookups", "dim"), "i32"),
                }
                sizes = {"BLOCK": row_update.VALUES // dim, "COLUMNS": dim}
                flags = {"STORED": stored, "CHANCE": stored > 0, "REPEATED": True}
                constants = {"OPTIMIZER": OPTIMIZERS.index(optimizer), **flags, **sizes}
                variant = f"{optimizer}, {name}{' by chance' * (stored > 0)}, {dim} columns"
                yield Case(row_update.row_update_kernel, variant, " ".join(types.values()), constants)


def chunks() -> Iterator[Case]:
    for dim in (4, 16):  # 4 chunks of a vector
        width = 4 * dim
        sizes = {"BLOCK": chunk_look_up.VALUES // width, "COLUMNS": width}
        for virtual in (False, True):
            types = (
                "*fp32 *i32 *i32 *i64 *fp32 i32 i32 i32" if virtual else "*fp32 *i32 *i64 *fp32 i32 i32 i32"
            )
            constants = {"VIRTUAL": virtual, **sizes, **({} if virtual else {"entry": None})}
            name = f"4 chunks of {dim}{', virtual ids' * virtual}"
            yield Case(chunk_look_up.chunk_look_up_kernel, name, types, constants)
        for optimizer in OPTIMIZERS:
            types = "*fp32 *fp32 *fp32 *i32 *fp32 *i32 *i64 *fp32 *fp64 i32 i32 i32"
            sizes = {"BLOCK": row_update.VALUES // dim, "COLUMNS": dim}
            constants = {"OPTIMIZER": OPTIMIZERS.index(optimizer), **sizes}
            yield Case(chunk_step.chunk_step_kernel, f"{optimizer}, chunks of {dim}", types, constants)


def shared_look_ups() -> Iterator[Case]:
    flags = ("ANY_AWAY", "ANY_HASHED", "ROW_SCALES", "ROW_BIASES", "ANY_FLOAT", "ANY_OFFSET")
    off = dict.fromkeys((*flags, "ANY_PAIRED", "ANY_POOLED", "ANY_SIGNED"), False)
    variants = {
        "pairs of floats": {**off, "ANY_PAIRED": True, "ANY_FLOAT": True},
        "pairs of codes": {**off, "ANY_PAIRED": True},
        "a pool": {**off, "ANY_POOLED": True, "ANY_FLOAT": True},
        "a pool with signatures": {**off, "ANY_POOLED": True, "ANY_SIGNED": True, "ANY_FLOAT": True},
        "everything in one plan": {**dict.fromkeys(off, True), "ROW_BIASES": False, "ROW_SCALES": False},
    }
    types = "*i32 *i64 *fp32 i32" + " *i64" * 5 + " *u8 *u8" + " *i64" * 7 + " *u8 i32 i32 i32 i32"
    types += " *i64" * 4 + " *u8 *i64 *fp32 *fp32 *i64 *fp32 i32 i32"
    for columns in (16, 64):
        sizes = {"STEPS": 7, "BLOCK": gather_packed.VALUES // columns, "COLUMNS": columns}
        for name, chosen in variants.items():
            variant = f"{name}, {columns} columns"
            yield Case(look_up_shared.look_up_shared_kernel, variant, types, {**sizes, **chosen})


def caches() -> Iterator[Case]:
    for ways in (1, 32):
        sizes = {"BLOCK": cache_probe.VALUES // ways, "WAYS": ways}
        yield Case(cache_probe.cache_probe_kernel, f"{ways} ways", "*i32 *i64 *i64 i32 i32 i32", sizes)


def report(case: Case, architecture: int) -> dict[str, Any]:
    """What the assembler says of the compiled case."""
    arguments = [name for name in case.kernel.arg_names if name not in case.constants]
    types = dict(zip(arguments, case.types.split(), strict=True))
    signature = {name: types.get(name, "constexpr") for name in case.kernel.arg_names}
    source = ASTSource(case.kernel, signature, constexprs=case.constants)
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": case.warps})
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [tools / "cuobjdump", "-res-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    return {
        "kernel": case.kernel.__name__.removesuffix("_kernel"),
        "variant": case.variant,
        "sm": architecture,
        "registers": found["REG"],
        "spill_bytes": found["LOCAL"] + found["STACK"],
        "shared_bytes": compiled.metadata.shared,
        "warps": compiled.metadata.num_warps,
    }


def main() -> None:
    cases = [
        *look_ups(),
        *random_numbers(),
        *packing(),
        *pairs(),
        *quantization(),
        *updates(),
        *chunks(),
        *shared_look_ups(),
        *caches(),
    ]
    kernels = []
    for sm in ARCHITECTURES:
        for case in cases:
            kernels.append(report(case, sm))
            print(kernels[-1], flush=True)
    path = Path(__file__).with_suffix(".json")
    content = {"triton": version("triton"), "kernels": kernels}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if any(entry["spill_bytes"] for entry in kernels):
        raise SystemExit("a kernel spills registers: make its block smaller")


if __name__ == "__main__":
    main()
