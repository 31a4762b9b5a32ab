"""What is shipped: a wheel and an editable install both hold the kernels, the presets and the types."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("hatchling") is None or importlib.util.find_spec("pip") is None,
        reason="building a wheel without the network needs hatchling and pip in this environment",
    ),
]

# -S keeps every .pth file out, so that a checkout installed in this environment cannot answer instead
PROBE = """
import json, site, sys
target, *libraries = sys.argv[1:]
before = len(sys.path)
site.addsitedir(target)                    # what an installation does: the folder and its .pth files
sys.path[before:] = [*sys.path[before:], *libraries]
import autoembed, autoembed_kernels
from autoembed.space import load_space, preset_names
names = list(preset_names())
print(json.dumps({
    "package": autoembed.__file__,
    "kernels": autoembed_kernels.__file__,
    "presets": names,
    "readable": all(load_space(name).fixed_settings or load_space(name).searched for name in names),
}))
"""

# a sum of repeated rows through its public door, and which library served it
KERNEL_PROBE = """
import json, torch
from autoembed_kernels.dedupe import dedupe, repeat
from autoembed_kernels.native.loader import library
unique, repeats = dedupe(torch.tensor([3, 1, 3]), 4)
values = torch.zeros(2, 8, requires_grad=True)
repeat(values, repeats).sum().backward()
print(json.dumps({
    "unique": unique.tolist(),
    "gradient": values.grad[:, 0].tolist(),
    "library": library() and library()._name,
}))
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(wheel: Path, target: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-index", "--target", target, wheel, cwd=target.parent)


def probe(target: Path, elsewhere: Path) -> dict[str, object]:
    """What a process sees that has only `target` and the libraries on its path."""
    elsewhere.mkdir()
    return json.loads(run(sys.executable, "-I", "-S", "-c", PROBE, target, *LIBRARIES, cwd=elsewhere))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("autoembed-*.whl")
    return built


def source_files(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder.parent)) for path in folder.rglob(pattern)}


def test_the_wheel_holds_every_source_file_preset_and_type_marker(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    presets = {f"autoembed/search_spaces/{path.name}" for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert presets, "there are presets to ship"
    assert presets <= held
    assert source_files(ROOT / "autoembed", "*.py") <= held
    assert source_files(ROOT / "kernels" / "autoembed_kernels", "*.py") <= held
    native = source_files(ROOT / "kernels" / "autoembed_kernels", "native/*.cpp")
    assert native and native | source_files(ROOT / "kernels" / "autoembed_kernels", "native/*.h") <= held
    assert {"autoembed/py.typed", "autoembed_kernels/py.typed"} <= held


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"autoembed", "autoembed_kernels"}


def test_the_wheel_names_the_command_and_carries_the_licence(wheel):
    archive = zipfile.ZipFile(wheel)
    (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "autoembed = autoembed.cli:main" in archive.read(points).decode()
    assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())


def test_an_installed_wheel_works_from_anywhere(wheel, tmp_path):
    target = tmp_path / "installed"
    install(wheel, target)
    seen = probe(target, tmp_path / "elsewhere")
    assert seen["package"] == str(target / "autoembed" / "__init__.py")
    assert seen["kernels"] == str(target / "autoembed_kernels" / "__init__.py")
    assert set(seen["presets"]) == {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert seen["readable"]


def compiled(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


def needs_compiled(wheel: Path) -> None:
    if not compiled(wheel):
        pytest.skip("no C++ compiler was there when the wheel was built, or this is not Linux x86-64")


def test_a_wheel_brings_a_library_for_every_level_and_says_so_in_its_tag(wheel):
    needs_compiled(wheel)
    levels = {f"x86-64-v{number}{threads}" for number in (2, 3, 4) for threads in ("", "-openmp")}
    assert {Path(name).stem for name in compiled(wheel)} == levels
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert wheel.stem.endswith("_x86_64") and "manylinux" in wheel.stem


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel, and this one's libraries behind it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    install(wheel, packages)
    # folders that a .pth file names are searched, but the .pth files inside are not read
    (packages / "libraries.pth").write_text("\n".join(LIBRARIES) + "\n")
    return folder


def kernels_in(environment: Path, cache: Path) -> tuple[dict[str, object], str]:
    """What the kernels' probe prints in an environment without a compiler, and what it says on stderr."""
    variables = {"PATH": str(environment / "bin"), "XDG_CACHE_HOME": str(cache), "HOME": str(cache)}
    done = subprocess.run(
        [environment / "bin" / "python", "-c", KERNEL_PROBE],
        env={**variables, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_an_installed_wheel_needs_no_compiler(wheel, environment, tmp_path):
    needs_compiled(wheel)
    seen, said = kernels_in(environment, tmp_path)
    assert (seen["unique"], seen["gradient"]) == ([1, 3], [1.0, 2.0])
    library = Path(str(seen["library"]))
    assert library.parent.name == "built" and library.is_relative_to(environment)
    assert said == "" and not (tmp_path / "autoembed").exists(), "nothing is built"


@pytest.fixture
def without_libraries(environment, tmp_path) -> Path:
    """The environment while its compiled kernels are away."""
    (packages,) = environment.glob("lib/python*/site-packages")
    built = packages / "autoembed_kernels" / "native" / "built"
    if built.exists():
        shutil.move(built, tmp_path / "kept")
    yield environment
    shutil.rmtree(built, ignore_errors=True)
    if (tmp_path / "kept").exists():
        shutil.move(tmp_path / "kept", built)


def test_without_compiled_kernels_and_a_compiler_torch_serves_and_says_so_once(without_libraries, tmp_path):
    seen, said = kernels_in(without_libraries, tmp_path)
    assert seen == {"unique": [1, 3], "gradient": [1.0, 2.0], "library": None}
    assert said.count("run on torch alone") == said.count("no C++ compiler found") == 1


def test_a_library_that_cannot_be_loaded_is_named_and_torch_serves(wheel, without_libraries, tmp_path):
    needs_compiled(wheel)
    (packages,) = without_libraries.glob("lib/python*/site-packages")
    for name in compiled(wheel):
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).write_bytes(b"not a library")
    seen, said = kernels_in(without_libraries, tmp_path)
    assert seen["library"] is None and seen["gradient"] == [1.0, 2.0]
    assert said.count("the library that was installed cannot be loaded") == 1


def test_a_source_archive_without_a_compiler_gives_a_wheel_for_any_platform(tmp_path):
    pack = f"from hatchling.build import build_sdist; print(build_sdist({str(tmp_path)!r}))"
    name = run(sys.executable, "-c", pack, cwd=ROOT).split()[-1]
    with tarfile.open(tmp_path / name) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.10 and 3.11 have it from a patch on
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(tmp_path)
    source = tmp_path / name.removesuffix(".tar.gz")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=source,
        env={"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(LIBRARIES)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    made = tmp_path / done.stdout.split()[-1]
    assert made.name.endswith("-py3-none-any.whl") and not compiled(made)
    held = set(zipfile.ZipFile(made).namelist())
    assert source_files(ROOT / "kernels" / "autoembed_kernels", "native/*.cpp") <= held
    assert f"autoembed/search_spaces/{next((ROOT / 'search_spaces').glob('*.yaml')).name}" in held


def test_an_editable_install_reads_the_checkout(tmp_path):
    build = f"from hatchling.build import build_editable; print(build_editable({str(tmp_path)!r}))"
    name = run(sys.executable, "-c", build, cwd=ROOT).split()[-1]
    target = tmp_path / "installed"
    install(tmp_path / name, target)
    seen = probe(target, tmp_path / "elsewhere")
    assert seen["package"] == str(ROOT / "autoembed" / "__init__.py")
    assert seen["kernels"] == str(ROOT / "kernels" / "autoembed_kernels" / "__init__.py")
    assert set(seen["presets"]) == {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
