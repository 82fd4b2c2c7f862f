"""Counts the processor cores that this process may use."""

from __future__ import annotations

import os
from pathlib import Path

from envs.machine.cgroups import CGROUP_ROOT, MEMBERSHIP, control_groups


def usable_cores(cgroup_root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP) -> int:
    """Cores within the affinity mask and the container's CPU quota, at least one.

    ``os.cpu_count`` counts the machine's cores; a container may have fewer, and more threads than
    cores slow each other down.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    groups = control_groups("cpu", "cpu,cpuacct", root=cgroup_root, membership=membership)
    quotas = [quota for quota in map(_read_quota, groups) if quota is not None]
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def _read_quota(group: Path) -> float | None:
    """Cores by ``cpu.max`` (control groups version 2) or ``cpu.cfs_*`` (version 1)."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        # "max" and -1 mean no limit.
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None
