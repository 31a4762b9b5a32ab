"""Import directions: every part knows only what lies below it. Read from the source, nothing is imported."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"autoembed": ROOT / "autoembed", "autoembed_kernels": ROOT / "kernels" / "autoembed_kernels"}

# From the bottom up. A part may import its own layer and those before it, never a later one.
LAYERS = (
    ("files", "config", "budget", "statistics", "damage"),
    ("record", "data"),
    ("plan", "stats"),
    (
        *("companions", "directory", "lookup", "row_codes", "tables_file", "vocabulary_file"),
        *(
            "marked_rows",
            "packed_segments",
            "pool_address",
            "packed_marks",
            "quotient_pairs",
            "quotient_paths",
            "row_tails",
            "segment_index",
        ),
    ),
    ("shared_rows",),
    ("packed", "signatures", "tables"),
    ("methods", "models", "metrics"),
    ("fitting", "space", "network_file", "evaluate", "ledger", "lone_rows", "schedule"),
    ("front", "runtime", "training_config", "training_loop", "training"),
    ("export",),
    ("joint",),
    ("search",),
    ("run",),
    ("report",),
    ("quickstart",),
    ("cli", "__main__"),
)
LAYER = {part: number for number, layer in enumerate(LAYERS) for part in layer}

# who alone may import a library
OWNERS = {"optuna": "search", "matplotlib": "report", "typer": "cli"}


@cache
def modules() -> dict[str, Path]:
    """Module name -> file, for both packages."""
    found = {}
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


def imported(source: str, known: set[str], *, at_load: bool = False) -> set[str]:
    """Names of the modules that `source` imports; `at_load`: only those imported when it is loaded."""
    names = set()
    for node in _statements(ast.parse(source), at_load):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read"
            module = node.module or ""
            submodules = {f"{module}.{alias.name}" for alias in node.names} & known
            names |= submodules or {module}
    return names


def _statements(tree: ast.AST, at_load: bool):
    for node in ast.iter_child_nodes(tree):
        if at_load and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if at_load and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _statements(node, at_load)


@cache
def imports_of(module: str, at_load: bool = False) -> set[str]:
    return imported(modules()[module].read_text(encoding="utf-8"), set(modules()), at_load=at_load)


def part(module: str) -> str:
    """`autoembed.data.batch` -> `data`; the package itself stands for its front door, above all."""
    return module.split(".")[1] if "." in module else "__main__"


def loaded_by(module: str) -> set[str]:
    """All modules, ours and libraries', that importing `module` loads, followed through our own."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
        for each in (name, *parents):
            if each in modules():
                waiting += [each, *imports_of(each, at_load=True)]
    return seen


OURS = sorted(name for name in modules() if name.split(".")[0] == "autoembed" and "." in name)
KERNELS = sorted(name for name in modules() if name.split(".")[0] == "autoembed_kernels")


def test_the_reader_of_imports_sees_what_python_sees():
    source = (
        "import a.b, c\nfrom d import e, f\ndef g():\n    from h import i\nif TYPE_CHECKING:\n    import j\n"
    )
    assert imported(source, {"d.e"}) == {"a.b", "c", "d.e", "h", "j"}
    assert imported(source, set(), at_load=True) == {"a.b", "c", "d"}


def test_every_part_has_a_layer():
    assert {part(name) for name in OURS} <= set(LAYER), "give a new part its place in LAYERS"


@pytest.mark.parametrize("module", OURS)
def test_imports_point_down(module):
    for name in imports_of(module):
        if name.split(".")[0] == "autoembed" and part(name) in LAYER:
            assert LAYER[part(name)] <= LAYER[part(module)], f"{module} imports {name}, which lies above it"


@pytest.mark.parametrize("module", KERNELS)
def test_kernels_know_only_tensors(module):
    assert "autoembed" not in {name.split(".")[0] for name in imports_of(module)}


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_stays_in_its_part(library):
    users = {part(name) for name in OURS for used in imports_of(name) if used.split(".")[0] == library}
    assert users <= {OWNERS[library]}


@pytest.mark.parametrize("side_door", ["runtime", "export"])
def test_serving_and_exporting_load_no_training_and_no_search(side_door):
    loaded = set().union(*(loaded_by(name) for name in OURS if part(name) == side_door))
    assert f"autoembed.{side_door}" in loaded
    ours = {part(name) for name in loaded if name.startswith("autoembed.")}
    assert not ours & {"training", "search", "methods", "space", "report"}
    assert "optuna" not in {name.split(".")[0] for name in loaded}


def test_no_module_needs_itself():
    """Without cycles at load time every module can be read, and imported, on its own."""
    order: dict[str, int] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"a cycle of imports: {' -> '.join((*above[above.index(name) :], name))}"
        if name not in order:
            for needed in sorted(imports_of(name, at_load=True) & set(modules())):
                visit(needed, (*above, name))
            order[name] = len(order)

    for name in modules():
        visit(name, ())
    assert set(order) == set(modules())


def test_opening_the_package_loads_none_of_its_parts():
    assert not {name for name in imports_of("autoembed", at_load=True) if name.startswith("autoembed.")}
