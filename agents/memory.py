"""How much memory is left, so that what cannot fit is refused before hours are spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from envs.errors import UserError


def available_memory(
    device: torch.device | str,
    meminfo: Path = Path("/proc/meminfo"),
    cgroup_root: Path = Path("/sys/fs/cgroup"),
    membership: Path = Path("/proc/self/cgroup"),
) -> int | None:
    """Bytes this process may still use on ``device``, or None where the system does not say.

    On the host that is the least of what the kernel calls available and what the limits of this
    process's control groups (versions 1 and 2) leave.

    Args:
        device: a CUDA device, or the host.
        meminfo: the kernel's account of the host's memory.
        cgroup_root: where control groups are mounted.
        membership: the file that says which groups this process is in.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator holds but does not use is free to this process, too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    left = [*_kernel_available(meminfo), *_left_in_groups(cgroup_root, membership)]
    return max(0, min(left)) if left else None


def gigabytes(count: int) -> str:
    """Bytes as a user reads them, such as ``7.14 GB``."""
    return f"{count / 1e9:.2f} GB"


def require_memory(needed: int, device: torch.device | str, what: str, remedy: str) -> None:
    """Refuses what does not fit.

    Args:
        needed: bytes.
        device: where they are needed.
        what: what needs them, as the message's subject.
        remedy: what the user can do, as the message's end.

    Raises:
        UserError: ``needed`` is more than is available.
    """
    available = available_memory(device)
    if available is not None and needed > available:
        place = "the host" if torch.device(device).type == "cpu" else str(device)
        raise UserError(
            f"{what} needs {gigabytes(needed)} on {place},"
            f" where {gigabytes(available)} are available: {remedy}"
        )


def _kernel_available(meminfo: Path) -> Iterator[int]:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _left_in_groups(cgroup_root: Path, membership: Path) -> Iterator[int]:
    """What each limit on this process's groups, and on those around them, leaves."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    paths = {line.split(":", 2)[2].lstrip("/") for line in lines if line.count(":") >= 2}
    for hierarchy in (cgroup_root, cgroup_root / "memory"):
        # In a container the mount itself may be this process's group.
        for path in ("", *paths):
            group = hierarchy / path
            while group.is_relative_to(hierarchy):
                yield from _left_in_group(group)
                group = group.parent


def _left_in_group(group: Path) -> Iterator[int]:
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit = (group / limit_name).read_text().strip()
            usage = int((group / usage_name).read_text())
            statistics = dict(
                line.split() for line in (group / "memory.stat").read_text().splitlines()
            )
        except (OSError, ValueError):
            continue
        if limit != "max":
            # The page cache of files not in use counts as used, and is given up when needed.
            yield int(limit) - usage + int(statistics.get(cache_name, 0))
