"""Packages that import their public names at the first use."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "package",
    [
        *("envs", "agents", "agents.dqn", "agents.ppo", "rlcnn.data", "rlcnn.report"),
        *("rlcnn.supervised", "rlcnn.supervised.evaluation"),
    ],
)
def test_every_public_name_of_a_package_can_be_imported(package: str) -> None:
    module = import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is getattr(module, name)
    with pytest.raises(AttributeError, match=f"^module '{package}' has no attribute 'nothing'$"):
        module.nothing  # noqa: B018


def test_a_package_alone_imports_none_of_its_modules() -> None:
    code = "import sys, agents; assert 'torch' not in sys.modules; from agents import PPO; PPO"
    subprocess.run([sys.executable, "-c", code], check=True)
