"""The origin of weights: their file, its training, and the weights that the training began with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

# Facts about its training in an agent's file, besides those in "about".
_OF_AGENTS = ("algorithm", "step")


@dataclass(frozen=True)
class Origin:
    """The origin of an encoder's weights."""

    weights: str  # the user's choice: "imagenet", a file or the directory of a run
    file: str = ""  # that was read, or an address; empty if unknown
    sha256: str = ""  # of the file, hexadecimal; empty for an address
    # Facts in the file, JSON values: data, recipe, accuracy, run; for an agent its algorithm, step
    # and environment.
    about: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin | None = None  # of the weights that the file's training began with

    @classmethod
    def of_file(cls, weights: str, file: Path, metadata: Mapping[str, Any]) -> Self:
        """The origin of weights in a file, from the user's choice and the file's metadata."""
        about = {key: metadata[key] for key in _OF_AGENTS if key in metadata}
        if isinstance(metadata.get("about"), dict):
            about.update(metadata["about"])
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return cls(weights, str(file), digest, about, Origin.from_json(metadata.get("origin")))

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """Reads what :meth:`to_json` wrote; None for anything else."""
        if not isinstance(value, dict) or not isinstance(value.get("weights"), str):
            return None
        about = value.get("about")
        return cls(
            value["weights"],
            str(value.get("file", "")),
            str(value.get("sha256", "")),
            about if isinstance(about, dict) else {},
            Origin.from_json(value.get("origin")),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "file": self.file,
            "sha256": self.sha256,
            "about": dict(self.about),
            "origin": self.origin.to_json() if self.origin else None,
        }

    def __str__(self) -> str:
        """One line for people, the nearest origin first."""
        # Tables, such as a whole configuration, are only in the JSON.
        facts = [
            f"{key} {value}"
            for key, value in self.about.items()
            if isinstance(value, str | int | float)
        ]
        if self.sha256:
            facts.insert(0, f"SHA-256 {self.sha256[:12]}")
        elif self.file:
            facts.insert(0, self.file)
        line = f'"{self.weights}"' + (f" ({', '.join(facts)})" if facts else "")
        return f"{line}, which began with {self.origin}" if self.origin else line
