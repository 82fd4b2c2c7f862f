"""Beginning a run and going on with it: what each attempt notes, and where a resume starts."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from envs.errors import UserError, in_shell
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.provenance import provenance

Config = TypeVar("Config")


def made_by(command: list[str] | None) -> dict[str, Any]:
    """What an attempt at a run is made by, to be noted with it.

    Args:
        command: the command line; None takes this process's.
    """
    return {"command": command or sys.argv, "provenance": provenance()}


def changed(config: Config, changes: Mapping[str, Any], resumable: Collection[str]) -> Config:
    """A run's configuration with a resume's changes.

    Args:
        config: a dataclass.
        changes: fields and their new values.
        resumable: fields that may change within a run.

    Raises:
        UserError: an option cannot change within a run.
    """
    for name, value in changes.items():
        if name not in resumable:
            option, old, new = _first_difference(name, getattr(config, name), value)
            raise UserError(
                f"--{option.replace('_', '-')} cannot change on a resume: the run has {old!r},"
                f" not {new!r}; begin a new run from its config.json with --config"
            )
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def newest_checkpoint(run: RunDirectory, tell: Callable[[str], None]) -> Path | None:
    """The last whole checkpoint, or None for a run that was killed before its first.

    Args:
        run: the run.
        tell: told of each that is passed over, and why.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    checkpoint, broken = run.latest_whole()
    for flawed in broken:
        tell(f"checkpoint {flawed.path} is passed over: {flawed.reason}")
    if checkpoint is None and broken:
        raise UserError(
            f"no checkpoint of run {run.path} is whole; begin anew with"
            f" --config {in_shell(run.path / 'config.json')}"
        )
    return checkpoint


def _first_difference(name: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The option that differs, and its values, where ``name`` may be a section of options."""
    if dataclasses.is_dataclass(old):
        for field in dataclasses.fields(old):
            pair = getattr(old, field.name), getattr(new, field.name)
            if pair[0] != pair[1]:
                return f"{name}.{field.name}", *pair
    return name, old, new
