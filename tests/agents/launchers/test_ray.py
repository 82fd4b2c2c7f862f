"""A study on a Ray cluster of one machine, one of whose nodes dies under it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.study_files import tiny_plan
from support.tiny_agents import TINY

from agents.launchers.local import Job, Outcome, Tick
from agents.launchers.ray import RayLauncher
from agents.study.results import read_result
from agents.study.runner import run_study
from envs.errors import UserError
from rlcnn.runs.stopping import TrainingStopped

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason='Ray is not installed: pip install "rlcnn[ray]"')


@pytest.mark.skipif(HAS_RAY, reason="Ray is installed")
def test_without_ray_one_line_says_how_to_install_it() -> None:
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

    tests = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests.parent), str(tests)]))
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_whose_node_dies_resumes_on_another_node(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    # Long enough for the node to die in the middle.
    plan = tiny_plan(base=replace(TINY, total_steps=8_000, checkpoint_every=160))
    first = tmp_path / plan.runs[0].directory

    lost = []

    class Launcher(RayLauncher):
        """Kills a node as soon as the first run has a checkpoint."""

        def run(self, jobs: Sequence[Job], tick: Tick) -> Generator[Outcome, None, None]:
            # Ray makes nodes in the main thread only.
            def lose_node(running: Collection[str]) -> None:
                if not lost and list(first.glob("checkpoints/[0-9]*")):
                    lost.append(node)
                    cluster.remove_node(node, allow_graceful=False)
                    cluster.add_node(num_cpus=1)
                tick(running)

            return super().run(jobs, lose_node)

    said = io.StringIO()
    console = Console(file=said, width=200)
    results = run_study(
        plan,
        tmp_path,
        lambda jobs: Launcher(cluster.address, 1, 0, jobs, notify=console.print),
        console=console,
    )
    assert lost
    assert results is not None
    assert results.whole, said.getvalue()
    assert f"{plan.runs[0].name}: lost with its worker" in said.getvalue()
    attempts = json.loads((first / "attempts.json").read_text())["attempts"]
    assert len(attempts) == 2
    assert "resuming from step" in (tmp_path / "logs" / f"{first.name}.log").read_text()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_stops_runs_on_the_cluster_with_a_checkpoint(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    # The only checkpoint is the one at the stop.
    plan = tiny_plan(base=replace(TINY, total_steps=100_000, checkpoint_every=0))
    first = tmp_path / plan.runs[0].directory

    class Launcher(RayLauncher):
        """Raises Ctrl-C as soon as the first run learns."""

        def run(self, jobs: Sequence[Job], tick: Tick) -> Generator[Outcome, None, None]:
            def press(running: Collection[str]) -> None:
                if (first / "metrics.jsonl").exists():
                    raise KeyboardInterrupt

            return super().run(jobs, press)

    with pytest.raises(TrainingStopped, match="--resume"):
        run_study(
            plan,
            tmp_path,
            lambda jobs: Launcher(cluster.address, 1, 0, jobs),
            console=Console(quiet=True),
        )
    assert list(first.glob("checkpoints/[0-9]*"))
    assert "stopped at step" in (tmp_path / "logs" / f"{first.name}.log").read_text()
    assert [read_result(tmp_path, run).state for run in plan.runs] == ["begun"] + 3 * ["waiting"]


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_no_node_has_room_for_is_refused(cluster: Any) -> None:
    cluster.add_node(num_cpus=1)
    with pytest.raises(UserError, match="no node of the Ray cluster has 64 CPUs"):
        RayLauncher(cluster.address, 64, 0, 4)
