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
    look_up_parts,
    look_up_shared,
    lsq,
    pair_products,
    philox,
    pool_packed,
    row_update,
    stochastic_round,
    take_rows,
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
    kinds_of = ("INTEGERS", "HALVES", "BRAINS", "SINGLES")
    off = dict.fromkeys((*kinds_of, "NARROW", "WHOLE_ROWS", "ROW_SCALES", "ROW_BIASES", "ANY_OFFSET"), 0)
    variants = {
        "codes, one scale per segment": {**off, "INTEGERS": 1},
        "codes, scale and bias in the row": {**off, "INTEGERS": 1, "ROW_SCALES": 1, "ROW_BIASES": 1},
        "whole rows of fp32": {**off, "SINGLES": 1, "WHOLE_ROWS": gather_packed.FP32},
        "whole rows of fp16": {**off, "HALVES": 1, "WHOLE_ROWS": gather_packed.FP16},
        "codes, fp16 and fp32": {**off, "INTEGERS": 1, "HALVES": 1, "SINGLES": 1},
        "everything in one plan": {
            **dict.fromkeys(off, 1),
            "WHOLE_ROWS": 0,
            "ROW_SCALES": 0,
            "ROW_BIASES": 0,
        },
    }
    of_segments = "*i64 *i64 *i64 *i64 *fp32"
    types = "*i32 *i64 *fp32 i32" + " *i64" * 7 + f" *u8 *u8 *u8 {of_segments} i32 i32"
    for width in (16, 64):
        for name, flags in variants.items():
            kinds = sum(flags[each] for each in kinds_of)
            block, columns, warps = gather_packed.tile(width, kinds)
            variant = f"{name}, {columns} columns"
            constants = {"BLOCK": block, "COLUMNS": columns, **flags}
            all_kinds = bool(flags["BRAINS"])
            away = {"STEPS": 7, "ANY_AWAY": all_kinds, "ANY_HASHED": all_kinds, "ANY_CODED": all_kinds}
            yield Case(look_up_packed.look_up_kernel, variant, types, {**away, **constants}, warps)
            pool = f"*i32 *i64 *i64 *fp32 *u8 *fp32 i32 i32 {' *i64' * 7} *u8 *u8 *u8 {of_segments} i32 i32"
            bags, _ = pool_packed.tile(width, kinds)
            of_bags = {**constants, "BLOCK": bags, "WEIGHTED": True}
            yield Case(pool_packed.pool_kernel, variant, pool, {**away, **of_bags}, pool_packed.WARPS)
            gather_types = f"*i32 *i64 *i64 *fp32 i32 {of_segments} i32"
            yield Case(gather_packed.gather_kernel, variant, gather_types, constants, warps)
        types_of_rows = {"fp32": "*fp32", "fp16": "*fp16", "int8": "*i8"}
        for name, stored in types_of_rows.items():
            block, columns, warps = take_rows.tile(width)
            constants = {"BLOCK": block, "COLUMNS": columns, "STEPS": name == "int8"}
            yield Case(
                take_rows.take_rows_kernel,
                f"{name}, {columns} columns",
                f"{stored} *fp16 *i64 *fp32 i32 i32",
                constants,
                warps,
            )


def random_numbers() -> Iterator[Case]:
    for columns in (16, 64):
        sizes = {"BLOCK": philox.VALUES // columns, "COLUMNS": columns}
        yield Case(philox.row_chances_kernel, f"{columns} columns", "*i64 *i64 *i64 i32 i32", sizes)
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
    yield Case(dedupe.chunk_rows_kernel, "", "*i64 *i64 i32 i32 i32", {"BLOCK": 128})
    yield Case(dedupe.place_rows_kernel, "", "*i32 *i32 *i64 *i64 i32", {"BLOCK": 1024})
    for dim in (16, 64):
        heavy = {"CHUNK": dedupe.CHUNK, "COLUMNS": dim}
        sums, warps = "*fp32 *i64 *i64", dedupe.heavy_warps(dim)
        name = f"{dim} columns"
        yield Case(dedupe.chunk_sums_kernel, name, f"{sums} *i64 *fp32 i32 i32 i32", heavy, warps)
        yield Case(dedupe.sum_heavy_kernel, name, f"{sums} *i64 *fp32 *fp32 i32 i32 i32", heavy, warps)
        block, columns = dedupe.light_tile(dim, dedupe.VALUES)
        light = {"BLOCK": block, "COLUMNS": columns}
        yield Case(dedupe.sum_light_kernel, name, f"{sums} *fp32 i32 i32 i32", light, dedupe.WARPS)
        block, columns = dedupe.light_tile(dim, row_update.VALUES)
        light = {"BLOCK": block, "COLUMNS": columns}
        for optimizer in OPTIMIZERS if dim == 16 else ("rowwise_adagrad",):
            for stored, stored_name in enumerate(("fp32", "fp16", "bf16", "i8")):
                types = f"*{stored_name} *i64 *fp32 *fp32 *fp32 *i32 *fp16 *fp64 *i64 *i64 *i64"
                kind = {"OPTIMIZER": OPTIMIZERS.index(optimizer), "STORED": stored, "CHANCE": stored > 0}
                variant = f"{optimizer}, {stored_name}{' by chance' * (stored > 0)}, {dim} columns"
                constants = {**kind, "REPEATED": True, **light}
                kernel = row_update.row_update_kernel
                yield Case(kernel, variant, f"{types} i32 i32 i32", constants, row_update.WARPS)
                summed = {**constants, "REPEATED": False, "order": None, "starts": None}
                of_rows = " ".join(types.split()[:-2])
                variant_of_rows = f"{variant}, gradients summed"
                yield Case(kernel, variant_of_rows, f"{of_rows} i32 i32 i32", summed, row_update.WARPS)
                kernel = row_update.heavy_row_update_kernel
                yield Case(kernel, variant, f"{types} *i64 *fp32 i32 i32 i32", {**kind, **heavy}, warps)


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
    flags = ("ANY_PAIRED", "ANY_POOLED", "ANY_SIGNED", "ANY_AWAY", "ANY_HASHED", "ANY_CODED", "WHOLE_ROWS")
    flags += ("NARROW", "INTEGERS", "HALVES", "BRAINS", "SINGLES", "ROW_SCALES", "ROW_BIASES", "ANY_OFFSET")
    off = dict.fromkeys(flags, 0)
    all_on = {**dict.fromkeys(off, 1), "ROW_BIASES": 0, "ROW_SCALES": 0, "WHOLE_ROWS": 0}
    variants = {
        "pairs of floats": {**off, "ANY_PAIRED": 1, "SINGLES": 1},
        "pairs of codes": {**off, "ANY_PAIRED": 1, "INTEGERS": 1},
        "a pool": {**off, "ANY_POOLED": 1, "SINGLES": 1},
        "a pool with signatures": {**off, "ANY_POOLED": 1, "ANY_SIGNED": 1, "SINGLES": 1},
        "everything in one plan": all_on,
    }
    types = "*i32 *i64 *fp32 i32" + " *i64" * 7 + " *u8 *u8 *u8" + " *i64" * 7 + " *u8 i32 i32 i32 i32"
    types += " *i64 *i64 *i64 *i64 *fp32 i32 i32"
    for width in (16, 64):
        block, columns, warps = look_up_shared.tile(width)
        sizes = {"STEPS": 7, "BLOCK": block, "COLUMNS": columns}
        for name, chosen in variants.items():
            variant = f"{name}, {columns} columns"
            yield Case(look_up_shared.look_up_shared_kernel, variant, types, {**sizes, **chosen}, warps)


def parts() -> Iterator[Case]:
    off = ("ANY_AWAY", "ANY_HASHED", "ANY_CODED", "WHOLE_ROWS", "ROW_SCALES", "ROW_BIASES")
    off += ("HALVES", "BRAINS", "SINGLES")
    codes = {**dict.fromkeys((*off, "ANY_OFFSET"), 0), "INTEGERS": 1, "NARROW": 1}
    types = "*i32 *i64 *i64 *fp32 i32" + " *i64" * 7 + " *u8 *u8 *u8 *i64 *i64 *i64 *i64 *fp32 i32 i32"
    for width in (16, 64):
        block, columns, warps = look_up_parts.tile(width)
        constants = {"STEPS": 7, "BLOCK": block, "COLUMNS": columns, "MOST": 2, **codes}
        kernel = look_up_parts.look_up_parts_kernel
        yield Case(kernel, f"codes, 3 parts, {columns} columns", types, constants, warps)
        some = ("ANY_AWAY", "ANY_HASHED", "ANY_CODED", "HALVES", "SINGLES")
        beside = {**constants, **dict.fromkeys(some, 1)}
        yield Case(kernel, f"3 parts beside floats and hashed rows, {columns} columns", types, beside, warps)


def caches() -> Iterator[Case]:
    for ways in (1, 32):
        sizes = {"BLOCK": cache_probe.VALUES // ways, "WAYS": ways}
        yield Case(cache_probe.cache_probe_kernel, f"{ways} ways", "*i32 *i64 *i64 i32 i32 i32", sizes)


def report(case: Case, architecture: int) -> dict[str, Any]:
    """What the assembler says of the compiled case."""
    arguments = [name for name in case.kernel.arg_names if name not in case.constants]
    types = dict(zip(arguments, case.types.split(), strict=True))
    signature = {name: types.get(name, "constexpr") for name in case.kernel.arg_names}
    # as a launch finds them: addresses and widths that 16 divides
    whole = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(case.kernel.arg_names)
        if types.get(name, "").startswith("*") or (name in ("width", "dim") and name in types)
    }
    source = ASTSource(case.kernel, signature, constexprs=case.constants, attrs=whole)
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
        *parts(),
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
