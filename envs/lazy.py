"""Public names of a package, imported at their first use: a package alone costs no time."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any


def import_at_first_use(package: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for the ``__init__`` of a package (PEP 562).

    Such a file imports its public names ``if TYPE_CHECKING:``, where editors and type checkers find
    them, and they are read from there::

        if TYPE_CHECKING:
            from package.module import Name
        else:
            __getattr__ = import_at_first_use(__name__)
    """

    @cache
    def origins() -> dict[str, str]:
        tree = ast.parse(Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        return {name.name: str(node.module) for node in imports for name in node.names}

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name.startswith("__") or name not in origins():
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(origins()[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return __getattr__
