"""Measures free memory, so that storage that cannot fit is refused before a training begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path

import torch

from envs.errors import UserError
from envs.machine.cgroups import CGROUP_ROOT, MEMBERSHIP, control_groups

# What networks, activations and kernels need on a GPU beside the storage.
_GPU_HEADROOM = 2**30


def available_memory(
    device: torch.device | str,
    meminfo: Path = Path("/proc/meminfo"),
    cgroup_root: Path = CGROUP_ROOT,
    membership: Path = MEMBERSHIP,
) -> int | None:
    """Bytes that this process may still use on ``device``; None if the system does not say.

    On the host that is the least of what the kernel calls available, in its file ``meminfo``, and
    what the limits of this process's control groups (versions 1 and 2) leave. ``cgroup_root`` is
    where these are mounted, and ``membership`` the file that lists the process's groups.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that torch's allocator reserved and does not use is free, too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    groups = control_groups("memory", root=cgroup_root, membership=membership)
    left = list(chain.from_iterable(map(_left_in_group, groups)))
    with suppress(OSError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                left.append(int(line.split()[1]) * 1024)
    return max(0, min(left)) if left else None


def gigabytes(count: int) -> str:
    """Bytes as a user reads them, such as ``7.14 GB`` and ``7.1 MB``."""
    return f"{count / 1e9:.2f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"


def choose_place(wanted: str, training: torch.device, needed: int, what: str) -> torch.device:
    """The device on which to store something large.

    Args:
        wanted: ``"auto"`` for the training device if it fits there and otherwise the host;
            ``"cpu"``; or the training device's name.
        training: the training device.
        needed: bytes.
        what: needs them, the message's subject.

    Raises:
        UserError: ``wanted`` is none of these, or there is not enough memory.
    """
    host = torch.device("cpu")
    choices = {"cpu": host, str(training): training, training.type: training}
    if wanted == "auto":
        left = available_memory(training)
        place = training if left is None or needed + _GPU_HEADROOM <= left else host
    elif wanted in choices:
        place = choices[wanted]
    else:
        named = " or ".join(f'"{name}"' for name in ("auto", *sorted(choices)))
        raise UserError(f'{what} can be stored on {named}, not on "{wanted}" (--replay-device)')
    left = available_memory(place)
    if left is not None and needed > left:
        raise UserError(
            f"{what} needs {gigabytes(needed)} on {place}, where {gigabytes(left)} are available:"
            " choose a smaller one"
        )
    return place


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
            # The page cache of files not in use counts as used, but is freed when needed.
            yield int(limit) - usage + int(statistics.get(cache_name, 0))
