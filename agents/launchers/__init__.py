"""Where the runs of a study are done: on this machine, or on a Ray cluster."""

from agents.launchers.local import Job, Launcher, LocalLauncher, Outcome

__all__ = ["Job", "Launcher", "LocalLauncher", "Outcome"]
