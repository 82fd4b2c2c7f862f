"""The house's one structural rule: imports run downwards only."""

import ast
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
