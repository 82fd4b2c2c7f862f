"""Configurations read from the directory of a run, or from a ``config.json`` as a run writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from envs.errors import UserError
from rlcnn.runs.directory import RunDirectory
from rlcnn.runs.files import read_json


class _Config(Protocol):
    def validate(self) -> None: ...


Config = TypeVar("Config", bound=_Config)


def read_config_file(
    source: RunDirectory | Path,
    key: str,
    parse: Callable[[dict[str, Any]], Config],
    missing: Callable[[dict[str, Any]], str],
) -> Config:
    """The valid configuration under ``key``.

    Args:
        source: a run or a file.
        key: of the configuration within the JSON document.
        parse: makes the configuration from its JSON values.
        missing: what the document lacks, after the file's name, where ``key`` holds no object.

    Raises:
        UserError: the file is missing or damaged, or holds no valid configuration.
    """
    if isinstance(source, RunDirectory):
        document, path = source.config, source.path / "config.json"
    else:
        if not source.is_file():
            inside = source / "config.json"
            hint = f' Did you mean "{inside}"?' if inside.is_file() else ""
            raise UserError(f"configuration {source} is not a file.{hint}")
        document, path = read_json(source), source
    if not isinstance(document.get(key), dict):
        raise UserError(f"{path} {missing(document)}")
    try:
        config = parse(document[key])
        config.validate()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return config
