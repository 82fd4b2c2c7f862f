"""Launchers run the jobs of a study: in processes of this machine, or on a Ray cluster."""

from typing import TYPE_CHECKING

from envs.lazy import import_at_first_use

if TYPE_CHECKING:
    from agents.launchers.local import Job, Launcher, LocalLauncher, Outcome
    from agents.launchers.options import Launching, make_launcher
    from agents.launchers.ray import RayLauncher
else:
    __getattr__ = import_at_first_use(__name__)

__all__ = [
    "Job",
    "Launcher",
    "Launching",
    "LocalLauncher",
    "Outcome",
    "RayLauncher",
    "make_launcher",
]
