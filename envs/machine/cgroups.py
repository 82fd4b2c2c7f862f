"""Which control groups hold this process, and so whose limits hold for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def control_groups(
    *controllers: str, root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP
) -> Iterator[Path]:
    """Directories of this process's control groups and of all groups around them.

    Those that do not exist may be among them, and one may come more than once.

    Args:
        *controllers: version 1 of control groups has a hierarchy for each controller, of one of
            these names; version 2 has one for all.
        root: where control groups are mounted.
        membership: the file that says which groups this process is in.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    paths = {line.split(":", 2)[2].lstrip("/") for line in lines if line.count(":") >= 2}
    for hierarchy in (root, *(root / controller for controller in controllers)):
        # In a container the mount itself may be this process's group.
        for path in ("", *paths):
            group = hierarchy / path
            while group.is_relative_to(hierarchy):
                yield group
                group = group.parent
