"""The machine under a process: its cores, control groups and spinning threads."""

from envs.machine.cores import usable_cores

__all__ = ["usable_cores"]
