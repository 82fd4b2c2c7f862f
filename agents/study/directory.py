"""The directory of a study or a search: its plan on disk, and its lock."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from envs.errors import UserError, in_shell
from rlcnn.runs.files import disk_errors, read_json, write_json_atomic
from rlcnn.runs.lock import acquire
from rlcnn.runs.provenance import provenance

Differences = Callable[[dict[str, Any], dict[str, Any]], list[str]]
"""The options in which a plan on disk differs from another, one phrase for each."""


@dataclass(frozen=True)
class PlanFile:
    """Where a plan is kept.

    Attributes:
        what: "study" or "search".
        name: of the file in the directory.
        option: that names the directory.
    """

    what: str
    name: str
    option: str

    def read(self, path: Path) -> dict[str, Any]:
        """The content of the file; ``UserError`` if there is none, or it holds no plan."""
        if not (path / self.name).is_file():
            raise UserError(f"{path} holds no {self.name}, so it is no {self.what}")
        document = read_json(path / self.name)
        try:
            self.plan_of(document)
        except UserError as error:
            raise UserError(f"{path / self.name}: {error}") from error
        return document

    def plan_of(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The plan in the content of the file."""
        if not isinstance(document.get("plan"), dict):
            raise UserError(f'it holds no plan of a {self.what}: "plan" is missing')
        plan: dict[str, Any] = document["plan"]
        return plan

    def open(self, path: Path, plan: dict[str, Any], differences: Differences) -> dict[str, Any]:
        """The content of the file; empty if nothing has begun there yet.

        Raises:
            UserError: the directory holds another plan, or something else.
        """
        if path.exists() and not path.is_dir():
            raise UserError(
                f"{self.what} directory {path} is a file: choose another by {self.option}"
            )
        if (path / self.name).is_file():
            document = read_json(path / self.name)
            try:
                differing = differences(self.plan_of(document), plan)
            except (UserError, TypeError, ValueError, AttributeError) as error:
                raise UserError(
                    f"{path / self.name} holds no plan of a {self.what}: {error}"
                ) from error
            if differing:
                raise UserError(
                    f"{self.what} {path} has another plan: {'; '.join(differing)}."
                    f" Choose another {self.option}, or resume it by --resume {in_shell(path)}"
                )
            return document
        if path.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
            raise UserError(
                f"{self.what} directory {path} is not empty and no {self.what}: it has no"
                f" {self.name}; choose another by {self.option}"
            )
        return {}

    def begin(self, path: Path, plan: dict[str, Any], before: dict[str, Any], **more: Any) -> Any:
        """Writes the file, which keeps what ``before`` holds of its first start, and returns it."""
        document = {
            "plan": plan,
            "command": sys.argv,
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "provenance": provenance(),
            **before,
            **more,
        } | {"plan": plan}
        write_json_atomic(path / self.name, document)
        return document

    def lock(self, path: Path) -> IO[bytes]:
        """Makes the directory and holds it for this process; the file is to be closed."""
        with disk_errors(path):
            path.mkdir(parents=True, exist_ok=True)
            return acquire(path, self.what)
