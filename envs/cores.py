"""How many processor cores this process may really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(
    cgroup_root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int:
    """Cores within the affinity mask and the container's CPU quota, at least one.

    ``os.cpu_count`` counts the machine's, of which a container may be given few; more threads than
    may run at once only get in each other's way.

    Args:
        cgroup_root: where control groups are mounted.
        membership: the file that says which groups this process is in.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quotas = list(_quotas(cgroup_root, membership))
    return max(1, min([cores, *(int(quota) for quota in quotas)]))


def _quotas(cgroup_root: Path, membership: Path) -> Iterator[float]:
    """CPU quotas, in cores, of this process's groups and all groups around them."""
    for hierarchy in (cgroup_root, cgroup_root / "cpu", cgroup_root / "cpu,cpuacct"):
        for group in _groups(membership):
            directory = hierarchy / group
            for level in (directory, *directory.parents):
                if not level.is_relative_to(hierarchy):
                    break
                quota = _read_quota(level)
                if quota is not None:
                    yield quota


def _groups(membership: Path) -> list[str]:
    """Paths of this process's groups, relative to the mount; the mount itself is always one."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    return ["", *{line.split(":", 2)[2].lstrip("/") for line in lines if line.count(":") >= 2}]


def _read_quota(group: Path) -> float | None:
    """Cores by ``cpu.max`` (control groups version 2) or ``cpu.cfs_*`` (version 1)."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        # "max" and -1 both say that there is no limit.
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None
