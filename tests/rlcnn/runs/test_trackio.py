"""trackio in place of Weights & Biases: the same run in its own database, and failures."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from envs.errors import UserError
from rlcnn.runs import tracker as tracker_module
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.tracker import RunCard, check_tracking
from rlcnn.runs.tracking import make_tracker

INSTALLED = pytest.mark.skipif(find_spec("trackio") is None, reason="trackio is not installed")
CARD = RunCard({"seed": 7, "ppo": {"gamma": 0.5}}, "train", group="Pong-ppo", tags=["ppo"])

# Read in a process of its own: trackio looks up its directory when it is imported.
READ = """
import json, trackio
runs = {}
for run in trackio.Api().runs("pixels"):
    metrics = {name: run.history(name) for name in run.metrics()}
    runs[run.name] = {"config": run.config, "metrics": metrics}
print(json.dumps(runs, default=str))
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", {})
