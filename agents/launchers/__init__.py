"""Launchers run the jobs of a study: in processes of this machine, or on a Ray cluster."""

from agents.launchers.local import Job, Launcher, LocalLauncher, Outcome
from agents.launchers.ray import RayLauncher

__all__ = ["Job", "Launcher", "LocalLauncher", "Outcome", "RayLauncher"]
