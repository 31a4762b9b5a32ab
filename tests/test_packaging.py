"""What is shipped: a wheel and an editable install both hold the kernels, the presets and the types."""

import importlib.util
import json
import subprocess
import sys
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
    "readable": all(load_space(name).baselines() or load_space(name).searched for name in names),
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


def test_an_editable_install_reads_the_checkout(tmp_path):
    build = f"from hatchling.build import build_editable; print(build_editable({str(tmp_path)!r}))"
    name = run(sys.executable, "-c", build, cwd=ROOT).split()[-1]
    target = tmp_path / "installed"
    install(tmp_path / name, target)
    seen = probe(target, tmp_path / "elsewhere")
    assert seen["package"] == str(ROOT / "autoembed" / "__init__.py")
    assert seen["kernels"] == str(ROOT / "kernels" / "autoembed_kernels" / "__init__.py")
    assert set(seen["presets"]) == {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
