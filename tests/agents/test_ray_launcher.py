"""A study on a Ray cluster of one machine, one of whose nodes dies under it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_study import BASE, make_plan

from agents.ray_launcher import RayLauncher
from agents.study import run_study
from envs.errors import UserError

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason='Ray is not installed: pip install "rlcnn[ray]"')


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_one_line_tells_how_to_get_it() -> None:
    with pytest.raises(UserError, match=r'pip install "rlcnn\[ray\]"'):
        RayLauncher("auto", 1, 0, 4)


def test_no_cpus_are_refused() -> None:
    with pytest.raises(UserError, match="--ray-cpus 0 must be at least 1"):
        RayLauncher("auto", 0, 0, 4)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster that runs nothing yet; its nodes find our packages, and the tests' games."""
    import ray
    from ray.cluster_utils import Cluster

    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(here.parents[1]), str(here)]))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_node_dies_goes_on_elsewhere_from_its_checkpoint(
    cluster: Any, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    # Long enough for the node to die in the middle.
    plan = make_plan(base=replace(BASE, total_steps=8_000, checkpoint_every=160))
    first = tmp_path / plan.runs[0].directory

    def lose_node() -> None:
        while not list(first.glob("checkpoints/[0-9]*")):
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=1)

    # Where the study fails before its first checkpoint, nothing is waited for.
    watcher = threading.Thread(target=lose_node, daemon=True)
    watcher.start()
    said = io.StringIO()
    console = Console(file=said, width=200)
    results = run_study(
        plan,
        tmp_path,
        lambda jobs: RayLauncher(cluster.address, 1, 0, jobs, tell=console.print),
        console=console,
    )
    watcher.join()
    assert results is not None
    assert results.whole, said.getvalue()
    assert f"{plan.runs[0].name}: lost with its worker" in said.getvalue()
    attempts = json.loads((first / "attempts.json").read_text())["attempts"]
    assert len(attempts) == 2
    assert "resuming from step" in (tmp_path / "logs" / f"{first.name}.log").read_text()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_no_node_has_room_for_is_refused(cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    with pytest.raises(UserError, match="no node of the Ray cluster has 64 CPUs"):
        RayLauncher(cluster.address, 64, 0, 4)
