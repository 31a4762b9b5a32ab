"""Building, keeping and loading the C++ library."""

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from native_library import native, poisoned
from random_plans import packed_with_rows

from autoembed.packed import PackedTable
from autoembed.plan import PROFILES, FieldPlan, Plan, Segment, Sharing, own
from autoembed_kernels.bitpack import native_pack_bits, native_unpack_bits
from autoembed_kernels.dedupe import native_dedupe, native_sum_repeats, native_take_rows
from autoembed_kernels.linear_relu import native_bias_relu, native_bias_relu_gradient
from autoembed_kernels.look_up_packed import native_look_up_packed
from autoembed_kernels.look_up_parts import native_look_up_parts
from autoembed_kernels.low_row_update import FORMATS, native_low_row_update, native_low_row_values
from autoembed_kernels.lsq import Grid, grid_table, native_quantized, native_quantized_gradients
from autoembed_kernels.native import build
from autoembed_kernels.native.loader import SIGNATURES, opened
from autoembed_kernels.pair_products import native_gradient, native_products
from autoembed_kernels.row_update import OPTIMIZERS, RowOptimizer, native_row_update

# one small operation through its public door, and whether the library served it
PROBE = """
import json, logging, sys, torch
from autoembed_kernels.dedupe import dedupe
from autoembed_kernels.native.loader import library
unique, _ = dedupe(torch.tensor([3, 1, 3]), 4)
print(json.dumps({"unique": unique.tolist(), "native": library() is not None}))
"""
COMPILES = """
import json, sys, torch
from autoembed_kernels.native.loader import library, must_compile
before = must_compile()
print(json.dumps({"before": before, "native": library() is not None, "after": must_compile()}))
"""


def run(code: str, **environment: str) -> tuple[dict[str, object], str]:
    """The JSON that a fresh process prints, and what it says on stderr."""
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "AUTOEMBED_NATIVE": "1", "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_the_level_is_the_highest_that_the_processor_reaches() -> None:
    v2, v3, v4 = (build.X86_LEVELS[f"x86-64-v{number}"] for number in (2, 3, 4))
    assert build.level(v4 | {"amx"}, "x86_64") == "x86-64-v4"
    assert build.level(v4 - {"avx512vl"}, "x86_64") == "x86-64-v3"
    assert build.level(v3 - {"bmi2"}, "x86_64") == "x86-64-v2"
    assert build.level(v2 - {"ssse3"}, "x86_64") == "x86-64"
    assert build.level(set(), "aarch64") == "aarch64"


def test_every_function_that_is_called_is_in_the_library() -> None:
    for name in SIGNATURES:
        assert getattr(native(), name).argtypes is not None


def test_without_a_compiler_torch_serves_and_one_message_says_so(tmp_path: Path) -> None:
    seen, said = run(PROBE, CXX="no-such-compiler", XDG_CACHE_HOME=str(tmp_path))
    assert seen == {"unique": [1, 3], "native": False}
    assert said.count("no C++ compiler found (looked for no-such-compiler)") == 1


def test_a_cache_that_cannot_be_written_leaves_torch_to_serve(tmp_path: Path) -> None:
    native()
    (tmp_path / "file").touch()
    seen, said = run(PROBE, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert seen == {"unique": [1, 3], "native": False}
    assert "cannot be written" in said and "set XDG_CACHE_HOME" in said


def test_the_library_can_be_switched_off_without_a_message() -> None:
    seen, said = run(PROBE, AUTOEMBED_NATIVE="0")
    assert seen == {"unique": [1, 3], "native": False}
    assert said == ""


@pytest.mark.slow
def test_whether_a_library_must_be_compiled_is_known_before() -> None:
    native()
    found, _ = run(COMPILES)
    assert found == {"before": False, "native": True, "after": False}
    off, _ = run(COMPILES, AUTOEMBED_NATIVE="0")
    assert off == {"before": False, "native": False, "after": False}


def test_processes_that_build_at_once_each_load_a_whole_library(tmp_path: Path) -> None:
    native()
    quick = tmp_path / "quick-compiler"  # which does not optimize: the race is the same
    quick.write_text(f'#!/bin/sh\nexec {build.compiler()[0]} "$@" -O0\n', encoding="utf-8")
    quick.chmod(0o755)
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path), "CXX": str(quick)}
    started = [
        subprocess.Popen([sys.executable, "-c", PROBE], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in started:
        said, _ = process.communicate(timeout=300)
        assert json.loads(said) == {"unique": [1, 3], "native": True}
    kept = list((tmp_path / "autoembed").iterdir())
    assert [path.suffix for path in kept] == [".so"], "one library, and nothing left of the building"


def results(library: ctypes.CDLL) -> list[torch.Tensor]:
    """What every kernel makes of one input; the sums of products are last."""
    generator = torch.Generator().manual_seed(0)
    rows = (torch.rand(700, generator=generator) ** 3 * 300).long()
    unique, repeats = native_dedupe(library, rows, 300)
    gradient = torch.randn(700, 19, generator=generator)
    summed = native_sum_repeats(library, gradient, repeats.order, repeats.starts, poisoned(len(unique), 19))
    made = [unique, repeats.inverse, repeats.order, summed]
    for name in OPTIMIZERS:
        optimizer, weight = RowOptimizer(name, l2=0.1), torch.ones(300, 19)
        state = optimizer.state(weight)
        for _ in range(2):
            native_row_update(library, optimizer, weight, state, unique, summed, 0.1)
        made += [native_take_rows(library, weight, rows, poisoned(700, 19)), *state.values()]
    made += repeated(library, rows, 16) + repeated(library, rows, 19)
    for bits in range(1, 9):
        codes = torch.randint(2**bits, (30, 21), generator=generator, dtype=torch.uint8)
        packed = native_pack_bits(library, codes, bits)
        made += [packed, native_unpack_bits(library, packed, 21, bits)]
    made += quantized(library, torch.randn(600, 19, generator=generator))
    for seed in range(20):
        plan = random_plan(seed)
        table = PackedTable(packed_with_rows(plan, seed)[0])
        reads = torch.arange(sum(field.rows for field in plan.fields)).repeat(3)
        held = (table.words, table._layout, table._addresses, reads, 1)
        made.append(native_look_up_packed(library, *held, poisoned(len(reads), table.width)))
    for width in (16, 20):  # rows that fit a register of the highest level, and others
        table = PackedTable(packed_with_rows(plan_in_parts(width), width)[0])
        reads = torch.arange(40).repeat(3)
        held = (table.words, table._layout, table._addresses, table.tails.count, reads, 1)
        made.append(native_look_up_parts(library, *held, poisoned(len(reads), width)))
    return made


def pair_sums(library: ctypes.CDLL) -> list[torch.Tensor]:
    """Products of pairs and their gradients, of shapes about the ends of blocks, vectors and threads."""
    generator = torch.Generator().manual_seed(2)
    made = []
    for count, dim in ((27, 19), (27, 16), (9, 8), (12, 64), (33, 32), (17, 5)):
        vectors = torch.randn(21, count, dim, generator=generator)
        products = native_products(library, vectors, poisoned(21, count * (count - 1) // 2))
        made += [products, native_gradient(library, products, vectors, poisoned(21, count, dim))]
    return made


def repeated(library: ctypes.CDLL, rows: torch.Tensor, dim: int) -> list[torch.Tensor]:
    """What two updates from repeated look-ups leave, of every format, by chance."""
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(len(rows), dim, generator=generator)
    made = []
    for dtype in (torch.float32, *FORMATS):
        start = 3 * torch.randn(300, dim, generator=generator)
        weight = start.to(dtype)
        steps = torch.full((300,), 0.5, dtype=torch.float16) if dtype == torch.int8 else None
        optimizer = RowOptimizer("rowwise_adagrad")
        state = optimizer.state(start)
        for update in range(2):
            if dtype == torch.float32:
                native_row_update(library, optimizer, weight, state, rows, gradient, 0.1, repeated=True)
            else:
                stored = (optimizer, weight, steps, state, rows, gradient, 0.1)
                native_low_row_update(library, *stored, (2**40 + 7, update), repeated=True)
        if dtype != torch.float32:
            made.append(native_low_row_values(library, weight, steps, rows))
        made += [weight, *state.values(), *([] if steps is None else [steps])]
    return made


def quantized(library: ctypes.CDLL, values: torch.Tensor) -> list[torch.Tensor]:
    """Values on a mixture of grids, and through a ReLU, with their gradients."""
    grids = [Grid(1), Grid(3, True), Grid(8)]
    steps, offset = torch.tensor([0.7, -0.2, 0.01]), 0.1 * values[0]
    mixture = values[:, :3].clamp(min=0)
    held = (values, steps, offset, grid_table(grids))
    mixed = native_quantized(library, *held, None, mixture)
    gradients = native_quantized_gradients(library, mixed, *held, torch.ones(3), None, mixture)
    out = native_bias_relu(library, values.clone(), offset)
    masked = torch.empty_like(out)
    summed = native_bias_relu_gradient(library, mixed, out, masked)
    return [mixed, *(one for one in gradients if one is not None), out, masked, summed]


def random_plan(seed: int) -> Plan:
    """One field for every precision of a profile, three rows each, dimension 1 to 20."""
    profile = list(PROFILES.values())[seed % len(PROFILES)]
    shared = profile.row_scale_bytes == 0
    fields = []
    for number, precision in enumerate(profile.precisions):
        integer = precision.startswith("int")
        scale, offset = (0, 0) if integer and shared else (None, None)
        segment = Segment(0, 3, Sharing.OWN, 3, seed + 1, precision, False, scale, offset)
        fields.append(FieldPlan(f"field {number}", 3, seed + 1, (segment,)))
    return Plan(profile, tuple(fields))


def plan_in_parts(width: int) -> Plan:
    """Rows in one, two and three parts, rows of floats, and rows that read row 0."""
    tails = [
        Segment(8, 8, Sharing.TAIL, 8, width - 5, "int2", False, 1),
        Segment(20, 20, Sharing.TAIL, 12, 3, "int3", True, 2),
        Segment(20, 20, Sharing.TAIL, 12, width - 9, "int1", False, 3),
    ]
    segments = (
        *(own(0, 8, 5, "int6", scale=0), tails[0], own(8, 20, 6, "int4", scale=4), *tails[1:]),
        *(own(20, 24, width, "fp32"), own(24, 30, width - 1, "int8", scale=0), Segment(30, 40, Sharing.OOV)),
    )
    return Plan(PROFILES["packed"], (FieldPlan("field", 40, width, segments),))


@pytest.mark.parametrize("level", ["x86-64", "x86-64-v2", "x86-64-v3"])
def test_lower_levels_give_the_same_numbers(level: str) -> None:
    native()
    best = build.level(build.processor_flags(), platform.machine())
    if not best.startswith("x86-64") or best <= level:
        pytest.skip(f"this processor's level is {best}")
    library = opened(build.build(level, openmp=False))
    assert all(
        torch.equal(one, other) for one, other in zip(results(library), results(native()), strict=True)
    )
    # sums of up to 64 products, with and without fused multiply-add
    for one, other in zip(pair_sums(library), pair_sums(native()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    before = torch.get_num_threads()
    made = []
    try:
        for workers in (1, 2, 3):
            torch.set_num_threads(workers)
            made.append(results(native()) + pair_sums(native()))
    finally:
        torch.set_num_threads(before)
    for other in made[1:]:
        assert all(torch.equal(one, two) for one, two in zip(made[0], other, strict=True))


def test_a_forked_child_works_after_the_parent_used_threads() -> None:
    # torch itself hangs in such a child as soon as it uses threads: the child compares lists
    code = """
import json, os, torch
from autoembed_kernels.dedupe import take_rows
torch.set_num_threads(2)
table, rows = torch.randn(1000, 16), torch.randint(1000, (200,))
expected = table[rows]
assert torch.equal(take_rows(table, rows), expected)
numbers = expected.tolist()
child = os.fork()
if child == 0:
    os._exit(0 if take_rows(table, rows).tolist() == numbers else 1)
print(json.dumps({"child": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}))
"""
    native()
    assert run(code)[0] == {"child": 0}


def test_torch_and_the_library_share_one_openmp() -> None:
    native()
    if not Path("/proc/self/maps").exists():
        pytest.skip("only Linux tells what a process has loaded")
    # in a process of its own: scikit-learn brings another copy for itself
    code = """
import json
from autoembed_kernels.native.loader import library
assert library() is not None
print(json.dumps({line.split()[-1]: "" for line in open("/proc/self/maps") if "libgomp" in line}))
"""
    loaded, _ = run(code)
    assert len(loaded) == 1


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_source_that_does_not_compile_is_reported_with_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong.cpp").write_text("int main( {")
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(build.BuildError, match=r"failed: .*wrong\.cpp"):
        build.build("x86-64", openmp=False)


@pytest.mark.slow
@pytest.mark.parametrize("other", ["aarch64-linux-gnu-g++", "clang++"])
def test_another_architecture_and_another_compiler_take_the_sources(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(other) is None:
        pytest.skip(f"{other} is not installed")
    monkeypatch.setenv("CXX", other)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.compiler.cache_clear()
    try:
        target = "aarch64" if other.startswith("aarch64") else "x86-64"
        assert build.build(target, openmp=False).read_bytes().startswith(b"\x7fELF")
    finally:
        build.compiler.cache_clear()


def test_two_python_threads_may_call_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from autoembed_kernels.dedupe import dedupe

    native()
    batches = [
        torch.randint(0, 50_000, (20_000,), generator=torch.Generator().manual_seed(s)) for s in range(8)
    ]
    expected = [torch.unique(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: dedupe(batch, 50_000)[0], batches))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
