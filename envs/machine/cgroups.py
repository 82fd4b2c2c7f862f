"""Finds the control groups of this process, whose limits apply to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def control_groups(
    *controllers: str, root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP
) -> Iterator[Path]:
    """Directories of this process's control groups and of their parents.

    Some may not exist, and some may be repeated. Version 1 of control groups has a hierarchy for
    each controller, version 2 one for all. ``root`` is the mount point, and ``membership`` lists
    the groups.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    paths = {line.split(":", 2)[2].lstrip("/") for line in lines if line.count(":") >= 2}
    for hierarchy in (root, *(root / controller for controller in controllers)):
        # In a container the mount point itself may be this process's group.
        for path in ("", *paths):
            group = hierarchy / path
            while group.is_relative_to(hierarchy):
                yield group
                group = group.parent
