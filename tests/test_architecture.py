"""The house's structural rules: imports run downwards only, and rooms and files stay small."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each may import those that follow it.
LAYERS = ["scripts", "agents", "rlcnn", "envs"]


def imported_layers(path: Path) -> set[str]:
    """Our packages that a file imports, wherever in the file it does so."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            modules.add(node.module or "")
    return {module.split(".")[0] for module in modules} & set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_downwards_only(layer):
    allowed = set(LAYERS[LAYERS.index(layer) :])
    # A script is a door: nothing, not even another script, goes through it.
    allowed -= {"scripts"}
    for path in (ROOT / layer).rglob("*.py"):
        upwards = imported_layers(path) - allowed
        assert not upwards, f"{path.relative_to(ROOT)} imports {', '.join(sorted(upwards))}"


def modules_by_name() -> dict[str, Path]:
    """Every module of the house but the scripts, by its dotted name."""
    found = {}
    for layer in LAYERS[1:]:
        for path in (ROOT / layer).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_modules(name: str, modules: dict[str, Path]) -> set[str]:
    """Our modules that run when a module's imports do, wherever in the file these stand.

    An import runs the packages above a module too. Those above the importing module itself run
    already; blocks for type checkers never run.
    """
    tree = ast.parse(modules[name].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found |= {*_above(alias.name, name), alias.name}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {*_above(node.module, name), *members}
            if not modules.keys() >= set(members):
                found.add(node.module)
    return found & set(modules) - {name}


def _above(imported: str, importer: str) -> list[str]:
    parts = imported.split(".")
    names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return [name for name in names if not importer.startswith(f"{name}.")]


def test_no_imports_form_a_cycle():
    modules = modules_by_name()
    graph = {name: imported_modules(name, modules) for name in modules}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("layer", LAYERS)
def test_packages_and_files_stay_small(layer):
    files = list((ROOT / layer).rglob("*.py"))
    assert files
    for path in files:
        assert len(path.read_text().splitlines()) <= 400, f"split {path.relative_to(ROOT)}"
    for package in {path.parent for path in files} - {ROOT / "rlcnn" / "encoders"}:
        # The encoders are one file a network.
        modules = [path for path in files if path.parent == package]
        assert len(modules) <= 15, f"split {package.relative_to(ROOT)}"
