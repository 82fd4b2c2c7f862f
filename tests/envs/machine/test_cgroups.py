"""Whose limits hold for a process, read from a file like the kernel's."""

from __future__ import annotations

from pathlib import Path

from envs.machine.cgroups import control_groups


def groups(root: Path, membership: str | None, *controllers: str) -> set[str]:
    """The groups found, relative to the mount."""
    mount, file = root / "cgroup", root / "membership"
    if membership is not None:
        file.write_text(membership)
    found = control_groups(*controllers, root=mount, membership=file)
    return {path.relative_to(mount).as_posix() for path in found}


def test_the_mount_itself_is_always_one(tmp_path: Path) -> None:
    assert groups(tmp_path, None) == {"."}
    assert groups(tmp_path, "nonsense\n") == {"."}
    assert groups(tmp_path, "0::/\n") == {"."}


def test_all_groups_around_a_group_are_among_them(tmp_path: Path) -> None:
    assert groups(tmp_path, "0::/pod/a:b/job\n") == {".", "pod", "pod/a:b", "pod/a:b/job"}


def test_every_controller_of_version_1_has_a_hierarchy(tmp_path: Path) -> None:
    assert groups(tmp_path, "4:cpu,cpuacct:/job\n", "cpu", "cpu,cpuacct") == {
        *(".", "job", "cpu", "cpu/job", "cpu,cpuacct", "cpu,cpuacct/job"),
    }
