"""Options of launchers, and the launcher that they describe; ``--help`` needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Interval

from rlcnn.config.groups import Computation

if TYPE_CHECKING:
    from agents.launchers.local import Launcher

Precision = Literal["auto", "fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class Launching:
    """Where runs are trained."""

    launcher: Literal["local", "ray"] = "local"
    """Where runs are trained: local, in processes of this machine; ray, on a Ray cluster."""
    workers: Annotated[int, Interval(ge=0)] = 0
    """Parallel runs on this machine, which share its cores; 0 gives each run one core, or four if
    it computes on a GPU."""
    ray_address: str = "auto"
    """Ray cluster, as ray.init takes it; auto finds the one of this machine."""
    ray_cpus: int = 1
    """CPUs of each run on the Ray cluster."""
    ray_gpus: float = 0.0
    """GPUs of each run on the Ray cluster; 0.25 lets four runs share one."""


def make_launcher(
    launching: Launching, computation: Computation, jobs: int, notify: Callable[[str], None]
) -> Launcher:
    """The launcher of a number of runs.

    Raises:
        UserError: there is no such device or cluster.
    """
    from agents.launchers.local import LocalLauncher
    from agents.launchers.ray import RayLauncher
    from rlcnn.accelerate.devices import resolve_device

    if launching.launcher == "ray":
        return RayLauncher(
            launching.ray_address,
            launching.ray_cpus,
            launching.ray_gpus,
            jobs,
            computation.num_threads,
            notify,
        )
    gpu = resolve_device(computation.device) != "cpu"
    return LocalLauncher(launching.workers, jobs, computation.num_threads, gpu, notify)


def shared_precision(launching: Launching, computation: Computation) -> Precision:
    """The precision of all runs, in place of "auto": the same on any machine that goes on with
    them.

    Each run on a cluster chooses its own, so that any machine can write the report.
    """
    from rlcnn.accelerate.devices import resolve_device, resolve_precision

    if computation.precision != "auto" or launching.launcher != "local":
        return computation.precision
    return resolve_precision(resolve_device(computation.device))
