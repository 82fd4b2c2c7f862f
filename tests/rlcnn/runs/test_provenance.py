"""The provenance of a run, inside and outside git."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

import rlcnn
from rlcnn.runs import provenance as module
from rlcnn.runs.provenance import provenance


def test_versions_and_machine_are_named() -> None:
    facts = provenance()
    assert facts["versions"]["rlcnn"] == rlcnn.__version__
    assert facts["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert all(facts["versions"].values())
    assert facts["cpu"]
    assert facts["cores"] >= 1
    assert len(facts["gpus"]) == torch.cuda.device_count()
    assert json.loads(json.dumps(facts)) == facts


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package lie in ``tmp_path``."""
    monkeypatch.setattr(module, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "provenance.py").write_text("version = 1\n")
    return tmp_path


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


def test_the_commit_and_changes_beside_it_are_named(elsewhere: Path) -> None:
    git(elsewhere, "init")
    git(elsewhere, "add", "provenance.py")
    git(elsewhere, "commit", "-m", "first")
    facts = provenance()
    assert re.fullmatch("[0-9a-f]{40}", facts["git_commit"])
    assert facts["git_dirty"] is False
    (elsewhere / "provenance.py").write_text("version = 2\n")
    assert provenance()["git_dirty"] is True


@pytest.mark.parametrize(
    "address, expected",
    [
        ("https://name:token@host/a.git", "https://host/a.git"),
        ("https://token@host/a.git", "https://host/a.git"),
        ("https://name:to@ken@host/a@b.git", "https://host/a@b.git"),
        ("git@host:a.git", "git@host:a.git"),
        (None, None),
    ],
)
def test_the_remote_has_no_password(
    elsewhere: Path, address: str | None, expected: str | None
) -> None:
    git(elsewhere, "init")
    git(elsewhere, "add", "provenance.py")
    if address is not None:
        git(elsewhere, "remote", "add", "origin", address)
    assert provenance()["git_remote"] == expected


def test_outside_git_there_is_no_commit(elsewhere: Path) -> None:
    facts = provenance()
    assert facts["git_commit"] is None
    assert facts["git_dirty"] is None


def test_a_copy_installed_inside_a_foreign_repository_has_no_commit(elsewhere: Path) -> None:
    git(elsewhere, "init")
    (elsewhere / "theirs.py").touch()
    git(elsewhere, "add", "theirs.py")
    git(elsewhere, "commit", "-m", "theirs")
    assert provenance()["git_commit"] is None


def test_a_machine_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance()["git_commit"] is None
